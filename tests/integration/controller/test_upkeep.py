"""What only grows is bounded, and a disk that runs low is told once."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from sqlalchemy import func, select

from harness.controller import ADMIN, make_context
from harness.disk import small_disk
from xfleet_contracts.errors import Refusal
from xfleet_controller.audit.models import AuditRow
from xfleet_controller.auth.rights import Actor
from xfleet_controller.context import Context
from xfleet_controller.db import Database
from xfleet_controller.fleet.models import OutboxRow
from xfleet_controller.traffic.models import TrafficHourly
from xfleet_controller.upkeep import service, store
from xfleet_controller.upkeep.disk import DiskWatch
from xfleet_controller.upkeep.retention import FOR_EVER, Retention
from xfleet_runtime.clock import FakeClock

pytestmark = pytest.mark.postgres
DAY = timedelta(days=1)


class Left(NamedTuple):
    audit: int
    events: int
    dirty: int
    hours: int


@pytest.fixture
async def aged(database: Database, tmp_path: Path) -> Context:
    """One row of each kind per age: of today, of 50 days ago, of 500 days ago."""
    context = make_context(database, tmp_path, clock=FakeClock(datetime(2026, 6, 1, tzinfo=UTC)))
    async with database.write() as session:
        for number, days in enumerate((0, 50, 500), start=1):
            at = context.clock.now() - days * DAY
            session.add(AuditRow(at=at, actor="system", action="x", object_kind="x", object_id="x"))
            session.add(OutboxRow(topic="event", payload={"type": "x"}, created_at=at))
            session.add(OutboxRow(topic="state", server_id=number, payload={}, created_at=at))
            hour = int(at.timestamp()) // 3600
            session.add(
                TrafficHourly(client_ref=number, inbound_ref=1, hour=hour, server_id=1, up_bytes=1, down_bytes=1)
            )
    return context


async def left(context: Context) -> Left:
    async with context.database.read() as session:

        async def count(table: type, *conditions: object) -> int:
            return await session.scalar(select(func.count()).select_from(table).where(*conditions)) or 0

        return Left(
            audit=await count(AuditRow, AuditRow.action == "x"),
            events=await count(OutboxRow, OutboxRow.topic == "event"),
            dirty=await count(OutboxRow, OutboxRow.topic == "state"),
            hours=await count(TrafficHourly),
        )


async def test_what_is_older_than_it_is_kept_goes_and_orders_to_servers_stay(aged: Context) -> None:
    await service.forget_the_old(aged)
    assert await left(aged) == Left(audit=2, events=1, dirty=3, hours=2)
    await service.change_retention(aged, ADMIN, Retention(audit_days=30, traffic_hours_days=32))
    await service.forget_the_old(aged)
    assert await left(aged) == Left(audit=1, events=1, dirty=3, hours=1)


async def test_for_ever_is_for_ever(aged: Context) -> None:
    forever = Retention(audit_days=FOR_EVER, traffic_hours_days=FOR_EVER, events_days=365)
    await service.change_retention(aged, ADMIN, forever)
    await service.forget_the_old(aged)
    assert await left(aged) == Left(audit=3, events=2, dirty=3, hours=3)


async def test_many_rows_go_in_small_steps(database: Database, tmp_path: Path) -> None:
    context = make_context(database, tmp_path, clock=FakeClock(datetime(2026, 6, 1, tzinfo=UTC)))
    old = context.clock.now() - 1000 * DAY
    async with database.write() as session:
        for _ in range(store.AT_ONCE_COUNT + 10):
            session.add(AuditRow(at=old, actor="system", action="x", object_kind="x", object_id="x"))
    assert await store.forget_audit(database, context.clock.now()) == store.AT_ONCE_COUNT + 10


async def test_the_api_shows_and_changes_it_and_says_what_is_out_of_range(api: httpx.AsyncClient) -> None:
    path = "/api/v1/settings/retention"
    assert (await api.get(path)).json()["audit_days"] == 400
    assert (await api.put(path, json={"audit_days": 90})).json()["audit_days"] == 90
    assert (await api.get(path)).json()["audit_days"] == 90
    refused = await api.put(path, json={"audit_days": 1, "tasks_days": 0})
    assert refused.status_code == 422
    assert {each["field"] for each in refused.json()["errors"]} == {"audit_days", "tasks_days"}
    assert (await api.put(path, json={"autid_days": 90})).status_code == 422


async def test_only_who_may_change_settings_changes_it(context: Context) -> None:
    with pytest.raises(Refusal) as refused:
        await service.change_retention(context, Actor(name="x", role="support"), Retention())
    assert refused.value.code == "forbidden"


async def test_a_low_disk_is_told_once_and_so_is_its_end(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'xfleet.db'}")
    await database.migrate()
    with small_disk(pytestconfig, size_bytes=8 * 1024 * 1024) as disk:
        context = make_context(database, disk.path, disk_low_bytes=4 * 1024 * 1024)
        watch = DiskWatch(context)
        await watch.look()
        disk.fill()
        await watch.look()
        await watch.look()
        disk.empty()
        await watch.look()
    async with database.read() as session:
        kinds = [row.payload["type"] for row in await session.scalars(select(OutboxRow).order_by(OutboxRow.id))]
    await database.close()
    assert kinds == ["disk_low", "disk_ok"]
