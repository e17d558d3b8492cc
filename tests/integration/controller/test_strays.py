"""An agent meets a restored database: what only it knows runs on, is shown, and is adopted or discarded."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select

from harness.broker import eventually
from harness.controller import ADMIN, REALITY, WEBSOCKET
from harness.controller_fleet import SmallAgent, World, api_of, beating, running_world, small_agent
from xfleet_contracts.care import StateHeld, StateRead
from xfleet_contracts.codec import canonical
from xfleet_contracts.desired_state import ClientBody, Entity, EntityKey, InboundBody, StatePoint, digest_of
from xfleet_controller.clients.models import Client, ClientInbound, Tombstone
from xfleet_controller.context import Context
from xfleet_controller.errors import Invalid, NotFound
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.servers import adopting, recovery, strays
from xfleet_controller.servers.adopting import StrayChoice
from xfleet_controller.servers.diff import server_diff
from xfleet_controller.servers.models import ServerRevision, StrayEntity
from xfleet_controller.servers.strays import stray_client_refs, stray_inbound_servers, stray_record
from xfleet_xraykit.generate import complete_client, complete_inbound

pytestmark = pytest.mark.real_broker
WS = {each: WEBSOCKET[each] for each in ("protocol", "settings", "stream_settings")}
STRAY = complete_inbound(InboundBody(ref=7001, port=9001, **WS))
CARL = complete_client(ClientBody(client=8001, inbound=7001, expires_at_ms=4_102_444_800_000), STRAY)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running_world(tmp_path / "data") as running:
        yield running


@pytest.fixture
async def api(world: World) -> AsyncIterator[Any]:
    async with api_of(world) as client:
        yield client


@pytest.fixture
async def agent(world: World) -> AsyncIterator[SmallAgent]:
    async with small_agent(world) as enrolled:
        yield enrolled


@pytest.fixture
def context(world: World) -> Context:
    return world.controller.context


async def in_step(world: World, agent: SmallAgent) -> bool:
    async with world.controller.context.database.read() as session:
        row = await session.get_one(ServerRevision, 1)
    return agent.point == StatePoint(revision=row.desired_revision, digest=row.desired_digest)


def knows_more(agent: SmallAgent, *, revision: int, **more: Any) -> None:
    """The agent as it would be had the database forgotten its last changes."""
    for body in (STRAY, CARL):
        key = f"{body.client}.{body.inbound}" if isinstance(body, ClientBody) else str(body.ref)
        kind = "client" if isinstance(body, ClientBody) else "inbound"
        agent.bodies[EntityKey(kind=kind, id=key)] = canonical(body)
    agent.bodies |= {EntityKey(kind="client", id=name): body for name, body in more.items()}
    agent.point = StatePoint(revision=revision, digest=digest_of(agent.bodies))


async def test_what_only_the_agent_knows_runs_on_until_it_is_adopted(
    world: World, api: Any, agent: SmallAgent, context: Context
) -> None:
    await eventually(lambda: in_step(world, agent))
    inbound = (await api.post("/api/v1/inbounds", params={"wait": 10}, json={**REALITY, "server_id": 1})).json()
    knows_more(agent, revision=500)
    held = dict(agent.bodies)
    await beating(agent, lambda: in_step(world, agent), within_s=20)
    assert (agent.point.revision, agent.bodies) == (501, held)
    assert agent.orders[-1].snapshot is not None
    diff = await server_diff(context, ADMIN, 1)
    assert [(line.kind, line.id) for line in diff.lines if line.change == "stray"] == [
        ("inbound", "7001"), ("client", "8001.7001"),
    ]  # fmt: skip
    async with context.database.read() as session:
        assert await stray_inbound_servers(session, [7001, 1]) == {7001: 1}
        assert await stray_client_refs(session) == {8001}
    # a change of something else, also one of everything, does not wipe them
    edited = await api.patch("/api/v1/servers/1", params={"wait": 10}, json={"allow_private_destinations": True})
    assert edited.json()["tasks"][0]["status"] == "completed"
    await api.patch(f"/api/v1/inbounds/{inbound['id']}", params={"wait": 10}, json={"port": 8555})
    assert {key.id for key in agent.bodies} >= {"7001", "8001.7001"}

    shown = (await api.get("/api/v1/servers/1/strays")).json()
    assert [(each["kind"], each["id"]) for each in shown] == [("inbound", "7001"), ("client", "8001.7001")]
    assert CARL.uuid not in str(shown)
    revision = agent.point.revision
    done = (await api.post("/api/v1/servers/1/strays/adopt", json={"ids": ["8001.7001"]})).json()
    assert (done["count"], done["task_ids"]) == (2, [])  # the very same bytes: there is nothing to send
    found = (await api.get("/api/v1/clients", params={"search": "recovered-8001"})).json()["items"]
    assert [each["expires_at"] for each in found] == ["2100-01-01T00:00:00Z"]
    assert (await api.get("/api/v1/servers/1/strays")).json() == []
    assert await in_step(world, agent)
    assert agent.point.revision == revision
    renamed = await api.patch(f"/api/v1/clients/{found[0]['id']}", params={"wait": 10}, json={"enabled": False})
    assert renamed.json()["tasks"][0]["status"] == "completed"
    assert EntityKey(kind="client", id="8001.7001") not in agent.bodies


async def test_discarded_strays_leave_the_server_and_their_bytes_find_a_tombstone(
    world: World, api: Any, agent: SmallAgent, context: Context
) -> None:
    await eventually(lambda: in_step(world, agent))
    knows_more(agent, revision=1)  # not ahead, but of another history
    await beating(agent, lambda: in_step(world, agent), within_s=20)
    assert EntityKey(kind="inbound", id="7001") in agent.bodies
    done = await api.post("/api/v1/servers/1/strays/discard", params={"wait": 10}, json={})
    assert [task["status"] for task in done.json()["tasks"]] == ["completed"]
    assert {key.kind for key in agent.bodies} == {"outbound", "settings"}
    async with context.database.read() as session:
        assert {(each.kind, each.key) for each in await session.scalars(select(Tombstone))} == {
            ("inbound", "7001"), ("client", "8001"),
        }  # fmt: skip
    assert (await api.post("/api/v1/servers/1/strays/adopt", json={"ids": ["7001"]})).status_code == 404


async def test_nobody_the_database_cut_or_removed_comes_back_as_a_stray(
    world: World, api: Any, agent: SmallAgent, context: Context
) -> None:
    await eventually(lambda: in_step(world, agent))
    inbound = (await api.post("/api/v1/inbounds", params={"wait": 10}, json={**REALITY, "server_id": 1})).json()
    made = {}
    for name in ("kept", "removed", "detached"):
        body = {"name": name, "inbound_ids": [inbound["id"]]}
        made[name] = (await api.post("/api/v1/clients", params={"wait": 10}, json=body)).json()
    before = {key.id: body for key, body in agent.bodies.items() if key.kind == "client"}
    await api.delete(f"/api/v1/clients/{made['removed']['id']}", params={"wait": 10})
    await api.patch(f"/api/v1/clients/{made['detached']['id']}", params={"wait": 10}, json={"inbound_ids": []})
    nonsense = {"9.7001": b'{"client":10,"inbound":7001}', "x": b"[[]]", "11.12": b'{"client":11,"inbound":12}'}
    knows_more(agent, revision=700, **before, **nonsense)
    await beating(agent, lambda: in_step(world, agent), within_s=20)
    assert sum(key.kind == "client" for key in agent.bodies) == 2
    lines = await adopting.list_stray_lines(context, ADMIN, 1)
    assert [each.id for each in lines] == ["7001", "11.12", "8001.7001"]
    done = await adopting.adopt(context, ADMIN, 1, StrayChoice())
    assert (done.count, [each.id for each in await adopting.list_stray_lines(context, ADMIN, 1)]) == (2, ["11.12"])


async def test_a_client_that_is_disabled_or_deleted_loses_its_strays_too_and_adopting_does_not_bring_it_back(
    world: World, api: Any, agent: SmallAgent, context: Context
) -> None:
    await eventually(lambda: in_step(world, agent))
    dora = (await api.post("/api/v1/clients", json={"name": "dora"})).json()
    async with context.database.read() as session:
        ref = (await session.get_one(Client, dora["id"])).ref
    stray = EntityKey(kind="client", id=f"{ref}.7001")
    body = canonical(complete_client(ClientBody(client=ref, inbound=7001), STRAY))
    knows_more(agent, revision=300, **{stray.id: body})
    await beating(agent, lambda: in_step(world, agent), within_s=20)
    for enabled in (False, True):
        await api.patch(f"/api/v1/clients/{dora['id']}", params={"wait": 10}, json={"enabled": enabled})
        assert (stray in agent.bodies) is enabled
    gone = await api.delete(f"/api/v1/clients/{dora['id']}", params={"wait": 10})
    assert gone.status_code < 300
    assert stray not in agent.bodies
    async with context.database.write() as session:  # as releases before left it
        sealed = context.vault.seal(stray_record(1, ("client", stray.id)), body)
        row = {"server_id": 1, "kind": "client", "entity_id": stray.id, "found_at": context.clock.now()}
        session.add(StrayEntity(**row, body_sealed=sealed))
    done = await adopting.adopt(context, ADMIN, 1, StrayChoice())
    assert done.count == 2
    assert [each["name"] for each in (await api.get("/api/v1/clients")).json()["items"]] == ["recovered-8001"]
    assert stray not in agent.bodies


async def test_discarding_a_client_on_one_inbound_leaves_it_where_it_is_a_stray_still(
    world: World, agent: SmallAgent, context: Context
) -> None:
    await eventually(lambda: in_step(world, agent))
    other = complete_inbound(InboundBody(ref=7002, port=9002, **WS))
    agent.bodies[EntityKey(kind="inbound", id="7002")] = canonical(other)
    carl = complete_client(ClientBody(client=8001, inbound=7002), other)
    knows_more(agent, revision=300, **{"8001.7002": canonical(carl)})
    await beating(agent, lambda: in_step(world, agent), within_s=20)
    await adopting.discard(context, ADMIN, 1, StrayChoice(ids=["8001.7001"]))
    await eventually(lambda: in_step(world, agent))
    assert {key.id for key in agent.bodies if key.kind == "client"} == {"8001.7002"}
    assert (await adopting.adopt(context, ADMIN, 1, StrayChoice())).count == 3


async def test_a_stray_that_was_put_there_by_hand_meanwhile_is_adopted_as_it_is(
    world: World, api: Any, agent: SmallAgent, context: Context
) -> None:
    await eventually(lambda: in_step(world, agent))
    inbound = (await api.post("/api/v1/inbounds", params={"wait": 10}, json={**REALITY, "server_id": 1})).json()
    erin = (await api.post("/api/v1/clients", json={"name": "erin"})).json()
    async with context.database.read() as session:
        client_ref = (await session.get_one(Client, erin["id"])).ref
        inbound_ref = (await session.get_one(Inbound, inbound["id"])).ref
    body = ClientBody(client=client_ref, inbound=inbound_ref, uuid="2b0c1f1e-0000-4000-8000-000000000001")
    knows_more(agent, revision=300, **{f"{client_ref}.{inbound_ref}": canonical(body)})
    await beating(agent, lambda: in_step(world, agent), within_s=20)
    await api.patch(f"/api/v1/clients/{erin['id']}", params={"wait": 10}, json={"inbound_ids": [inbound["id"]]})
    held = dict(agent.bodies)
    assert (await adopting.adopt(context, ADMIN, 1, StrayChoice())).count == 3
    assert await adopting.list_stray_lines(context, ADMIN, 1) == []
    assert await in_step(world, agent)
    assert agent.bodies == held


async def test_a_stray_whose_port_is_given_away_waits_for_a_decision(
    world: World, api: Any, agent: SmallAgent, context: Context
) -> None:
    await eventually(lambda: in_step(world, agent))
    await api.post("/api/v1/inbounds", params={"wait": 10}, json={**WEBSOCKET, "port": 9001, "server_id": 1})
    knows_more(agent, revision=300)
    await beating(agent, lambda: in_step(world, agent), within_s=20)
    with pytest.raises(Invalid, match="Port 9001"):
        await adopting.adopt(context, ADMIN, 1, StrayChoice())
    async with context.database.read() as session:
        assert await session.scalar(select(func.count()).select_from(ClientInbound)) == 0
    with pytest.raises(NotFound):
        await adopting.adopt(context, ADMIN, 4711, StrayChoice())


async def test_an_agent_that_cannot_be_asked_gets_a_snapshot(world: World, agent: SmallAgent, context: Context) -> None:
    await eventually(lambda: in_step(world, agent))
    agent.knows_reading = False
    knows_more(agent, revision=400)
    await beating(agent, lambda: in_step(world, agent), within_s=20)
    assert agent.point.revision == 401
    assert await adopting.list_stray_lines(context, ADMIN, 1) == []


class Babbler:
    """Answers `state.read` with one more page of strays, for ever."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.pages_count = 0

    async def request(self, sid: str, verb: str, order: StateRead, answer: type[StateHeld]) -> StateHeld:
        self.pages_count += 1
        entities = tuple(
            Entity(kind="inbound", id=str(order.offset + number), body=msgspec.Raw(b"x" * self.size_bytes))
            for number in range(100)
        )
        return StateHeld(point=StatePoint(revision=9, digest="x"), entities=entities, total_count=10**9)


@pytest.mark.parametrize(("size_bytes", "pages_count"), [(1, 200), (100_000, 4)])
async def test_an_agent_that_tells_without_end_is_not_heard_to_its_end(size_bytes: int, pages_count: int) -> None:
    babbler = Babbler(size_bytes)
    await recovery._read(babbler, "local")  # type: ignore[arg-type]
    assert babbler.pages_count == pages_count


async def test_no_server_fills_the_disk_with_strays_however_often_it_tells_others(
    world: World, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strays, "MAX_STRAYS", 5)

    async def tell(first: int, count: int) -> int:
        bodies = [msgspec.structs.replace(STRAY, ref=ref) for ref in range(first, first + count)]
        held = {EntityKey(kind="inbound", id=str(each.ref)): canonical(each) for each in bodies}
        async with context.database.write() as session:
            await strays.keep_strays(session, context.vault, 1, held, context.clock.now())
        async with context.database.read() as session:
            return await session.scalar(select(func.count()).select_from(StrayEntity)) or 0

    assert [await tell(100, 3), await tell(100, 3), await tell(200, 3), await tell(300, 3)] == [3, 3, 5, 5]
    monkeypatch.setattr(strays, "MAX_STRAYS", 500)
    monkeypatch.setattr(strays, "MAX_STRAYS_BYTES", 3000)
    assert 5 < await tell(400, 100) < 20
