"""Limits, concurrent writers and the jobs around clients, on both databases."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import select

from harness.controller import ADMIN, REALITY, WEBSOCKET, add_server, make_context
from xfleet_contracts.desired_state import ClientBody, EntityKey, digest_of
from xfleet_controller.auth.rights import SYSTEM
from xfleet_controller.clients import service
from xfleet_controller.clients.models import Client
from xfleet_controller.clients.service import ClientEdit, ClientNew
from xfleet_controller.context import Context
from xfleet_controller.db import Database
from xfleet_controller.errors import Invalid
from xfleet_controller.fleet.models import OutboxRow
from xfleet_controller.inbounds import service as inbounds
from xfleet_controller.inbounds.service import InboundNew
from xfleet_controller.servers.difference import forget_the_old, make_order
from xfleet_controller.servers.models import Server, ServerRevision, StateEntity, StatePointRow
from xfleet_controller.servers.state import state_record
from xfleet_controller.traffic.models import ClientTotal
from xfleet_runtime.clock import FakeClock

pytestmark = pytest.mark.postgres


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime(2026, 6, 1, tzinfo=UTC))


@pytest.fixture
def context(database: Database, tmp_path: Path, clock: FakeClock) -> Context:
    return make_context(database, tmp_path, clock=clock)


async def new_inbound(context: Context, server: Server, template: dict = WEBSOCKET, **more: object) -> int:
    view, _ = await inbounds.create_inbound(context, ADMIN, InboundNew(server_id=server.id, **(template | more)))
    return view.row.id


async def wanted(context: Context, server_id: int) -> dict[EntityKey, bytes]:
    """The server's desired state, checked against its digest."""
    async with context.database.read() as session:
        row = await session.get_one(ServerRevision, server_id)
        rows = await session.scalars(
            select(StateEntity).where(StateEntity.server_id == server_id, StateEntity.removed.is_(False))
        )
        bodies = {
            EntityKey(kind=each.kind, id=each.entity_id): context.vault.open(  # type: ignore[arg-type]
                state_record(server_id, (each.kind, each.entity_id)), each.body_sealed or b""
            )
            for each in rows
        }
        point = await session.get_one(StatePointRow, (server_id, row.desired_revision))
    assert digest_of(bodies) == row.desired_digest == point.digest
    return bodies


def clients_in(bodies: dict[EntityKey, bytes]) -> list[ClientBody]:
    return [msgspec.json.decode(body, type=ClientBody) for key, body in bodies.items() if key.kind == "client"]


async def set_used(context: Context, ref: int, used_bytes: int) -> None:
    async with context.database.write() as session:
        row = await session.get(ClientTotal, ref) or ClientTotal(client_ref=ref)
        row.period_down_bytes = row.down_bytes = used_bytes
        session.add(row)


async def test_a_cut_client_leaves_every_server_and_its_neighbour_stays(context: Context, server: Server) -> None:
    other = await add_server(context, "second")
    ids = [await new_inbound(context, server), await new_inbound(context, other)]
    alice, _ = await service.create_client(context, ADMIN, ClientNew(name="alice", inbound_ids=ids, total_bytes=100))
    await service.create_client(context, ADMIN, ClientNew(name="bob", inbound_ids=ids))
    await set_used(context, alice.row.ref, 100)
    async with context.database.write() as session:
        assert len(await service.cut_client(session, context, alice.row.ref, "quota")) == 2
    async with context.database.write() as session:
        assert await service.cut_client(session, context, alice.row.ref, "quota") == []
    for each in (server, other):
        assert len(clients_in(await wanted(context, each.id))) == 1
    assert (await service.get_client(context, ADMIN, alice.row.id)).state == "depleted"


async def test_a_raised_quota_lifts_the_quotas_cut_only(context: Context, server: Server, clock: FakeClock) -> None:
    ids = [await new_inbound(context, server)]
    made, _ = await service.create_client(context, ADMIN, ClientNew(name="alice", inbound_ids=ids, total_bytes=100))
    await set_used(context, made.row.ref, 150)
    async with context.database.write() as session:
        await service.cut_client(session, context, made.row.ref, "quota")
    async with context.database.write() as session:
        assert await service.lift_cut(session, context, made.row.ref) == []
    still, tasks = await service.edit_client(context, ADMIN, made.row.id, ClientEdit(total_bytes=140))
    assert (still.state, tasks) == ("depleted", [])
    back, tasks = await service.edit_client(context, ADMIN, made.row.id, ClientEdit(total_bytes=1000))
    assert (back.state, len(tasks)) == ("active", 1)
    assert len(clients_in(await wanted(context, server.id))) == 1
    late = clock.now() - timedelta(hours=1)
    over, _ = await service.edit_client(context, ADMIN, made.row.id, ClientEdit(expires_at=late))
    assert over.state == "expired"
    more, tasks = await service.edit_client(context, ADMIN, made.row.id, ClientEdit(total_bytes=None))
    assert (more.state, tasks) == ("expired", [])


async def test_time_that_is_over_cuts_and_moved_time_brings_back(
    context: Context, server: Server, clock: FakeClock
) -> None:
    ids = [await new_inbound(context, server)]
    until = clock.now() + timedelta(hours=1)
    made, _ = await service.create_client(context, ADMIN, ClientNew(name="alice", inbound_ids=ids, expires_at=until))
    assert clients_in(await wanted(context, server.id))[0].expires_at_ms == int(until.timestamp() * 1000)
    assert await service.cut_overdue(context) == 0
    clock.advance(3600)
    assert await service.cut_overdue(context) == 1
    assert await service.cut_overdue(context) == 0
    assert clients_in(await wanted(context, server.id)) == []
    async with context.database.read() as session:
        events = [
            row.payload["type"] for row in await session.scalars(select(OutboxRow).where(OutboxRow.topic == "event"))
        ]
    assert events.count("client_expired") == 1
    moved, tasks = await service.edit_client(
        context, ADMIN, made.row.id, ClientEdit(expires_at=clock.now() + timedelta(days=30))
    )
    assert (moved.state, len(tasks)) == ("active", 1)
    assert len(clients_in(await wanted(context, server.id))) == 1


async def test_a_disabled_inbound_takes_its_clients_along(context: Context, server: Server) -> None:
    from xfleet_controller.inbounds.service import InboundEdit

    inbound_id = await new_inbound(context, server)
    await service.create_client(context, ADMIN, ClientNew(name="alice", inbound_ids=[inbound_id]))
    await inbounds.edit_inbound(context, ADMIN, inbound_id, InboundEdit(enabled=False))
    assert {key.kind for key in await wanted(context, server.id)} == {"outbound", "settings"}
    await inbounds.edit_inbound(context, ADMIN, inbound_id, InboundEdit(enabled=True))
    assert {key.kind for key in await wanted(context, server.id)} == {"outbound", "settings", "inbound", "client"}


async def test_writers_at_the_same_time_lose_nothing(context: Context, server: Server) -> None:
    others = [server, *[await add_server(context, f"s{number}") for number in range(3)]]
    ids = [await new_inbound(context, each) for each in others]

    async def add(number: int) -> None:
        chosen = ids if number % 2 else list(reversed(ids))
        view, _ = await service.create_client(context, ADMIN, ClientNew(name=f"c{number}", inbound_ids=chosen))
        await service.edit_client(context, ADMIN, view.row.id, ClientEdit(inbound_ids=chosen[:2]))

    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(add(number))
    counts = [len(clients_in(await wanted(context, each.id))) for each in others]
    assert counts == [6, 6, 6, 6]


async def test_a_second_controller_sees_what_the_first_wrote(context: Context, server: Server, tmp_path: Path) -> None:
    inbound_id = await new_inbound(context, server)
    second = make_context(context.database, tmp_path, clock=context.clock)
    second.vault = context.vault
    for number, each in enumerate((context, second, context, second, second, context)):
        await service.create_client(each, ADMIN, ClientNew(name=f"c{number}", inbound_ids=[inbound_id]))
    assert len(clients_in(await wanted(context, server.id))) == 6


async def test_a_refused_change_leaves_nothing_behind(context: Context, server: Server) -> None:
    inbound_id = await new_inbound(context, server)
    await service.create_client(context, ADMIN, ClientNew(name="alice", inbound_ids=[inbound_id]))
    before = await wanted(context, server.id)
    with pytest.raises(Invalid):
        await service.create_client(context, ADMIN, ClientNew(name="ALICE", inbound_ids=[inbound_id]))
    await service.create_client(context, ADMIN, ClientNew(name="bob", inbound_ids=[inbound_id]))
    after = await wanted(context, server.id)
    assert len(after) == len(before) + 1


async def test_differences_lead_from_every_kept_point_to_the_present(context: Context, server: Server) -> None:
    from xfleet_contracts.desired_state import StatePoint, applied_to

    inbound_id = await new_inbound(context, server, REALITY)
    history = [(await point_of(context, server.id), await wanted(context, server.id))]
    for number in range(5):
        view, _ = await service.create_client(context, ADMIN, ClientNew(name=f"c{number}", inbound_ids=[inbound_id]))
        history.append((await point_of(context, server.id), await wanted(context, server.id)))
        if number % 2:
            await service.delete_client(context, ADMIN, view.row.id)
            history.append((await point_of(context, server.id), await wanted(context, server.id)))
    present = await wanted(context, server.id)
    async with context.database.write() as session:
        row = await session.get_one(ServerRevision, server.id)
        for base, bodies in history[:-1]:
            order = await make_order(session, context.vault, row, base, context.clock.now())
            assert order.difference is not None
            assert applied_to(bodies, order.difference.put, order.difference.remove) == present
        foreign = StatePoint(revision=1, digest="0" * 64)
        assert (await make_order(session, context.vault, row, foreign, context.clock.now())).snapshot is not None
        await forget_the_old(session, context.clock.now())


async def point_of(context: Context, server_id: int) -> object:
    from xfleet_controller.servers.difference import target_of

    async with context.database.read() as session:
        return target_of(await session.get_one(ServerRevision, server_id))


async def test_a_sealed_body_opens_only_where_it_belongs(context: Context, server: Server) -> None:
    from xfleet_runtime.keys.sealed import BoxUnreadableError

    inbound_id = await new_inbound(context, server, REALITY)
    async with context.database.read() as session:
        rows = (await session.scalars(select(StateEntity).where(StateEntity.kind == "inbound"))).all()
        client_rows = (await session.scalars(select(Client))).all()
    assert (inbound_id, client_rows) == (1, [])
    assert b"privateKey" not in (rows[0].body_sealed or b"")
    with pytest.raises(BoxUnreadableError):
        context.vault.open(state_record(99, ("inbound", rows[0].entity_id)), rows[0].body_sealed or b"")


def test_the_system_may_do_everything() -> None:
    from xfleet_controller.auth.rights import authorize

    authorize(SYSTEM, "anything.write")
