"""From a change to an acknowledged server, over the real broker with an agent that speaks the contract."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from harness.broker import eventually
from harness.controller import REALITY, WEBSOCKET
from harness.controller_fleet import SmallAgent, World, api_of, beating, running_world, small_agent
from xfleet_contracts.apply import Degraded
from xfleet_contracts.desired_state import EntityKey, StatePoint, digest_of
from xfleet_contracts.errors import ErrorBody
from xfleet_controller.clients.models import Tombstone
from xfleet_controller.servers.models import ServerRevision, StateEntity

pytestmark = pytest.mark.real_broker


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


async def desired(world: World) -> StatePoint:
    async with world.controller.context.database.read() as session:
        row = await session.get_one(ServerRevision, 1)
        return StatePoint(revision=row.desired_revision, digest=row.desired_digest)


async def in_step(world: World, agent: SmallAgent) -> bool:
    return agent.point == await desired(world)


async def add_inbound(api: Any, template: dict = WEBSOCKET, **more: Any) -> dict:
    answer = await api.post("/api/v1/inbounds", params={"wait": 10}, json={**template, "server_id": 1, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_an_enrolled_agent_is_brought_to_the_wanted_state(world: World, api: Any, agent: SmallAgent) -> None:
    await eventually(lambda: in_step(world, agent))
    assert {key.kind for key in agent.bodies} == {"outbound", "settings"}
    shown = (await api.get("/api/v1/servers/1")).json()
    assert (shown["slug"], shown["status"], shown["xray_version"]) == ("local", "online", "26.1.1")


async def test_a_change_waits_for_the_acknowledgement_and_is_a_difference(
    world: World, api: Any, agent: SmallAgent
) -> None:
    await eventually(lambda: in_step(world, agent))
    inbound = await add_inbound(api)
    assert [task["status"] for task in inbound["tasks"]] == ["completed"]
    made = await api.post(
        "/api/v1/clients", params={"wait": 10}, json={"name": "alice", "inbound_ids": [inbound["id"]]}
    )
    assert [task["status"] for task in made.json()["tasks"]] == ["completed"]
    difference = agent.orders[-1].difference
    assert difference is not None
    assert [each.kind for each in difference.put] == ["client"]
    gone = await api.delete(f"/api/v1/clients/{made.json()['id']}", params={"wait": 10})
    assert [task["status"] for task in gone.json()["tasks"]] == ["completed"]
    difference = agent.orders[-1].difference
    assert difference is not None
    assert ([each.kind for each in difference.remove], difference.put) == (["client"], ())
    assert digest_of(agent.bodies) == (await desired(world)).digest


async def test_changes_made_while_the_agent_was_away_arrive_when_it_returns(
    world: World, api: Any, agent: SmallAgent
) -> None:
    await eventually(lambda: in_step(world, agent))
    agent.silent = True
    made = await api.post("/api/v1/inbounds", json={**WEBSOCKET, "server_id": 1})
    task_url = f"/api/v1/tasks/{made.json()['task_ids'][0]}"
    assert (await api.get(task_url)).json()["status"] in {"pending", "running"}
    agent.silent = False
    await agent.link.close()

    async def completed() -> bool:
        return (await api.get(task_url)).json()["status"] == "completed"

    keys = agent.keys
    async with small_agent(world, keys) as back:
        back.bodies, back.point, back.instance, back.seq = agent.bodies, agent.point, "i2", 0
        await beating(back, completed, within_s=25)


async def test_an_agent_elsewhere_gets_another_difference_or_everything(
    world: World, api: Any, agent: SmallAgent
) -> None:
    await eventually(lambda: in_step(world, agent))
    before = (dict(agent.bodies), agent.point)
    await add_inbound(api)
    agent.bodies, agent.point = before
    await beating(agent, lambda: in_step(world, agent))
    agent.bodies, agent.point = {}, StatePoint(revision=1, digest="f" * 64)
    await beating(agent, lambda: in_step(world, agent))
    assert agent.orders[-1].snapshot is not None
    assert digest_of(agent.bodies) == agent.point.digest


async def test_an_agent_ahead_of_a_restored_database_is_met_above_its_revision(
    world: World, api: Any, agent: SmallAgent
) -> None:
    await eventually(lambda: in_step(world, agent))
    agent.point = StatePoint(revision=500, digest="e" * 64)
    await beating(agent, lambda: in_step(world, agent))
    assert agent.point.revision == 501
    assert agent.orders[-1].snapshot is not None
    assert (await add_inbound(api))["tasks"][0]["status"] == "completed"


async def test_a_refused_entity_degrades_its_own_task_and_no_other(world: World, api: Any, agent: SmallAgent) -> None:
    await eventually(lambda: in_step(world, agent))
    good = await add_inbound(api, REALITY)
    ref = next(key.id for key in agent.bodies if key.kind == "inbound")
    agent.degraded = (
        Degraded(
            key=EntityKey(kind="inbound", id=ref), path="inbounds[8443].port", code="bind", reason="The port is taken."
        ),
    )
    edited = await api.patch(f"/api/v1/inbounds/{good['id']}", params={"wait": 10}, json={"port": 8444})
    task = edited.json()["tasks"][0]
    assert task["status"] == "degraded"
    assert (task["error"]["code"], task["error"]["path"]) == ("bind", "inbounds[8443].port")
    assert task["error"]["message"] == "The port is taken."
    assert (await add_inbound(api))["tasks"][0]["status"] == "completed"
    assert (await api.get("/api/v1/servers/1")).json()["degraded_count"] == 1


async def test_a_state_refused_for_good_is_not_sent_again(world: World, api: Any, agent: SmallAgent) -> None:
    await eventually(lambda: in_step(world, agent))
    agent.refusal = ErrorBody(code="malformed", message="No such thing.", details={})
    refused = await add_inbound(api)
    assert refused["tasks"][0]["status"] == "failed"
    assert refused["tasks"][0]["error"]["code"] == "malformed"
    count = agent.heard.count("state.apply")
    await agent.beat()
    await agent.beat()
    agent.refusal = None
    assert (await add_inbound(api, REALITY))["tasks"][0]["status"] == "completed"
    assert agent.heard.count("state.apply") == count + 1


async def test_an_order_that_was_refused_for_now_is_tried_again_under_a_new_id(
    world: World, api: Any, agent: SmallAgent
) -> None:
    await eventually(lambda: in_step(world, agent))
    agent.order_ids.clear()
    agent.refusal = ErrorBody(code="state_unreachable", message="Later.", details={})
    await api.post("/api/v1/inbounds", json={**WEBSOCKET, "server_id": 1})
    await eventually(lambda: len(agent.order_ids) >= 2)
    assert len(set(agent.order_ids)) == len(agent.order_ids)
    agent.refusal = None
    await beating(agent, lambda: in_step(world, agent))


async def test_a_large_state_travels_in_chunks(world: World, api: Any, agent: SmallAgent) -> None:
    await eventually(lambda: in_step(world, agent))
    agent.silent = True
    inbound = (await api.post("/api/v1/inbounds", json={**WEBSOCKET, "server_id": 1})).json()
    for number in range(40):
        settings = {
            **REALITY["stream_settings"]["realitySettings"],
            "serverNames": [f"{'a' * 60}{i}.example" for i in range(200)],
        }
        body = {**REALITY, "port": 20000 + number, "server_id": 1}
        body["stream_settings"] = {**REALITY["stream_settings"], "realitySettings": settings}
        assert (await api.post("/api/v1/inbounds", json=body)).status_code == 201
    agent.silent = False
    await beating(agent, lambda: in_step(world, agent), within_s=40)
    snapshot = agent.orders[-1].snapshot
    assert snapshot is not None
    assert len(snapshot.chunks) > 1
    assert inbound["id"]


async def test_a_lost_report_is_asked_for_again_and_its_refusals_reach_the_task(
    world: World, api: Any, agent: SmallAgent
) -> None:
    await eventually(lambda: in_step(world, agent))
    agent.silent = True
    made = (await api.post("/api/v1/inbounds", json={**WEBSOCKET, "server_id": 1})).json()
    target = await desired(world)
    async with world.controller.context.database.read() as session:
        names = (await session.scalars(select(StateEntity.entity_id).where(StateEntity.kind == "inbound"))).all()
    key = EntityKey(kind="inbound", id=names[0])
    agent.degraded = (Degraded(key=key, path="inbounds[8080].port", code="port_busy", reason="The port is taken."),)
    agent.point, agent.silent = target, False  # it took the order, and its answer was lost

    async def task() -> dict:
        return (await api.get(f"/api/v1/tasks/{made['task_ids'][0]}")).json()

    async def done() -> bool:
        return (await task())["status"] not in {"pending", "running"}

    await beating(agent, done, within_s=30)
    assert (await task())["status"] == "degraded"
    assert (await task())["error"]["path"] == "inbounds[8080].port"


async def test_an_answer_nobody_can_read_leaves_no_task_running(world: World, api: Any, agent: SmallAgent) -> None:
    await eventually(lambda: in_step(world, agent))
    agent.garbage = b'{"ok":true,"data":{"point":{"revision":-7},"applied_revision":1e999}}'
    made = (await api.post("/api/v1/inbounds", json={**WEBSOCKET, "server_id": 1})).json()

    async def put_back() -> bool:
        task = (await api.get(f"/api/v1/tasks/{made['task_ids'][0]}")).json()
        return task["status"] == "pending" and (task["error"] or {}).get("code") == "bad_answer"

    await eventually(put_back)
    agent.garbage = b""
    await beating(agent, lambda: in_step(world, agent), within_s=20)


async def test_a_refused_state_that_returns_fails_at_once_and_a_new_agent_may_take_it(
    world: World, api: Any, agent: SmallAgent
) -> None:
    await eventually(lambda: in_step(world, agent))
    agent.refusal = ErrorBody(code="malformed", message="No such thing.", details={})
    made = await add_inbound(api)
    assert made["tasks"][0]["status"] == "failed"
    agent.instance, agent.seq, agent.refusal = "i2", 0, None
    await beating(agent, lambda: in_step(world, agent), within_s=20)


async def test_ten_edits_while_the_agent_was_away_arrive_in_one_apply_and_deletions_wait_visibly(
    world: World, api: Any, agent: SmallAgent
) -> None:
    await eventually(lambda: in_step(world, agent))
    inbound = await add_inbound(api)
    body = {"name": "leaver", "inbound_ids": [inbound["id"]]}
    leaver = (await api.post("/api/v1/clients", params={"wait": 10}, json=body)).json()
    await agent.link.close()
    made = [
        (await api.post("/api/v1/clients", json={"name": f"c{number}", "inbound_ids": [inbound["id"]]})).json()
        for number in range(8)
    ]
    await api.patch(f"/api/v1/inbounds/{inbound['id']}", json={"port": 8081})
    gone = (await api.delete(f"/api/v1/clients/{leaver['id']}")).json()
    context = world.controller.context
    async with context.database.read() as session:
        assert [each.retiring for each in await session.scalars(select(Tombstone))] == [True]
    lines = (await api.get("/api/v1/servers/1/diff")).json()["lines"]
    assert sorted(line["change"] for line in lines) == ["add"] * 8 + ["change", "remove"]

    async def completed() -> bool:
        tasks = [await api.get(f"/api/v1/tasks/{each}") for each in (made[0]["task_ids"][0], gone["task_ids"][0])]
        return all(task.json()["status"] == "completed" for task in tasks)

    async with small_agent(world, agent.keys) as back:
        back.bodies, back.point, back.instance, back.seq = agent.bodies, agent.point, "i2", 0
        await beating(back, completed, within_s=25)
        changes = [each for each in back.orders if each.difference and (each.difference.put or each.difference.remove)]
        assert len(changes) == 1
        assert changes[0].difference is not None
        assert (len(changes[0].difference.put), len(changes[0].difference.remove)) == (9, 1)
    async with context.database.read() as session:
        assert [each.retiring for each in await session.scalars(select(Tombstone))] == [False]
    assert (await api.get("/api/v1/servers/1/diff")).json()["lines"] == []
