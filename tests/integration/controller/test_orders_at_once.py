"""Orders and rollouts on both databases: nothing is claimed twice, found wrongly or kept too long."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import select

from harness.controller import ADMIN, add_server
from xfleet_contracts.errors import Refusal
from xfleet_contracts.installs import Download, XrayInstall
from xfleet_controller.app import keep_house
from xfleet_controller.auth.rights import SYSTEM, Actor
from xfleet_controller.context import Context
from xfleet_controller.orders import service, store, verbs
from xfleet_controller.orders.limits import OrderLimits, TooManyOrders
from xfleet_controller.orders.runner import OrderRunner
from xfleet_controller.rollouts import service as rollouts
from xfleet_controller.servers.models import Rollout, Server
from xfleet_controller.tasks import service as tasks
from xfleet_controller.tasks.models import ServerTask
from xfleet_controller.tasks.store import TaskFilter
from xfleet_runtime.clock import FakeClock

NOTHING = verbs.XRAY_RESTART.body()
INSTALL = XrayInstall(version="26.2.6", archive=Download(url="https://mirror.example/x?key=hush", sha256="ab" * 32))


async def test_two_controllers_never_carry_out_the_same_order_nor_two_of_a_server(
    context: Context, server: Server
) -> None:
    other = await add_server(context, "other")
    for each in (server, other):
        await service.order(context, ADMIN, each.id, verbs.XRAY_RESTART, NOTHING)
        await service.order(context, ADMIN, each.id, verbs.XRAY_STOP, NOTHING)
    runners = [OrderRunner(context) for _ in range(4)]
    now = context.clock.now()

    async def claim(runner: OrderRunner) -> list[tuple[int, str]]:
        async with context.database.read() as session:
            waiting = await store.list_waiting(session)
        firsts = {each.server_id: each for each in reversed(waiting)}
        found: list[tuple[int, str]] = []
        for due in firsts.values():
            async with context.database.write() as session:
                claimed = await runner._claim_one(session, due, now)
            if claimed is not None:
                found.append((claimed.server.id, claimed.task.verb))
        return found

    claimed = [each for found in await asyncio.gather(*map(claim, runners)) for each in found]
    assert sorted(claimed) == [(server.id, "xray.restart"), (other.id, "xray.restart")]


async def test_the_same_order_at_once_is_one_order(context: Context, server: Server) -> None:
    given = await asyncio.gather(
        *(service.order(context, ADMIN, server.id, verbs.XRAY_INSTALL, INSTALL) for _ in range(5))
    )
    assert sorted(each.joined for each in given) == [False, True, True, True, True]
    async with context.database.read() as session:
        (row,) = (await session.scalars(select(ServerTask).where(ServerTask.verb != ""))).all()
    assert row.order_sealed is not None
    assert b"hush" not in row.order_sealed


async def test_a_server_that_never_comes_back_is_not_given_orders_without_end(context: Context, server: Server) -> None:
    for number in range(service.MAX_OPEN):
        who = Actor(name="a", role="owner", admin_id=number)
        days = verbs.CERTS_GENERATE.body(domains=(f"h{number}.example",))
        await service.order(context, who, server.id, verbs.CERTS_GENERATE, days)
    with pytest.raises(service.TooManyWaiting):
        await service.order(context, ADMIN, server.id, verbs.XRAY_RESTART, NOTHING)


async def test_tasks_are_found_by_who_when_what_and_trace(context: Context, server: Server) -> None:
    token = Actor(name="alice", role="owner", channel="token", token_name="ci", admin_id=5)
    for who in (ADMIN, token, SYSTEM):
        await service.order(context, who, server.id, verbs.XRAY_RESTART, NOTHING)
        await service.order(context, who, server.id, verbs.XRAY_STOP, NOTHING)
        async with context.database.write() as session:
            for row in await session.scalars(select(ServerTask).where(ServerTask.status == "pending")):
                row.status, row.completed_at = "completed", context.clock.now()

    async def found(**wanted: object) -> int:
        return (await tasks.list_tasks(context, ADMIN, TaskFilter(**wanted))).total  # type: ignore[arg-type]

    now = context.clock.now()
    assert await found(operation="xray.restart") == 3
    assert (await found(actor="admin"), await found(actor="alice"), await found(actor="ali")) == (2, 2, 0)
    assert await found(actor="token:alice/ci", operation="xray.stop") == 1
    assert await found(since=now + timedelta(hours=1)) == 0
    assert await found(until=now + timedelta(hours=1), server_id=server.id, status="completed") == 7
    assert await found(actor="%") == 0


async def test_an_order_that_is_being_carried_out_does_not_expire_under_it(context: Context, server: Server) -> None:
    given = await service.order(context, ADMIN, server.id, verbs.XRAY_RESTART, NOTHING)
    now = context.clock.now()
    async with context.database.write() as session:
        row = await session.get_one(ServerTask, given.task.id)
        row.status, row.deadline_at = "running", now - timedelta(seconds=1)
        row.lease_until_at = now + timedelta(seconds=30)
    await keep_house(context)
    assert (await tasks.get_task(context, ADMIN, given.task.id)).status == "running"
    async with context.database.write() as session:
        (await session.get_one(ServerTask, given.task.id)).lease_until_at = None
    await keep_house(context)
    done = await tasks.get_task(context, ADMIN, given.task.id)
    assert (done.status, done.order_sealed, (done.error or {})["code"]) == ("expired", None, "expired")


async def test_an_old_rollout_is_forgotten_and_a_server_is_in_one_at_a_time(context: Context, server: Server) -> None:
    new = rollouts.RolloutNew(verb="xray.install", body={"version": "bundled"})
    view = await rollouts.create(context, ADMIN, new)
    with pytest.raises(rollouts.RolloutActive):
        await rollouts.create(context, ADMIN, new)
    with pytest.raises(Refusal):
        await rollouts.create(context, ADMIN, rollouts.RolloutNew(verb="xray.install", body={}, server_ids=[server.id]))
    await rollouts.cancel(context, ADMIN, view.rollout.id)
    async with context.database.write() as session:
        row = await session.get_one(Rollout, view.rollout.id)
        row.completed_at = context.clock.now() - timedelta(days=400)
    await keep_house(context)
    assert (await rollouts.list_rollouts(context, ADMIN))[1] == 0


def test_a_limit_is_per_admin_server_and_weight_and_passes_with_time() -> None:
    clock = FakeClock()
    limits = OrderLimits(clock)
    for _ in range(5):
        limits.take("1", 1, "heavy")
    with pytest.raises(TooManyOrders) as refused:
        limits.take("1", 1, "heavy")
    assert 0 < refused.value.details["retry_after_s"] <= 61
    for other in (("2", 1, "heavy"), ("1", 2, "heavy"), ("1", 1, "write"), ("1", 1, "state")):
        limits.take(*other)  # type: ignore[arg-type]
    clock.advance(60)
    limits.take("1", 1, "heavy")
