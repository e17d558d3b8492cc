"""SQL of forgetting: in small transactions, so that nobody waits for a large one."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.audit.models import AuditRow
from xfleet_controller.db import Database
from xfleet_controller.fleet import store as fleet_store
from xfleet_controller.fleet.models import OutboxRow
from xfleet_controller.outbox import EVENT
from xfleet_controller.traffic.models import TrafficHourly
from xfleet_controller.upkeep.retention import Retention

RETENTION = "retention"
AT_ONCE_COUNT = 2000


async def find_retention(session: AsyncSession) -> Retention:
    """How long things are kept; the defaults when nobody changed them."""
    value: Any = await fleet_store.find_setting(session, RETENTION)
    return msgspec.convert(value, Retention) if value else Retention()


async def set_retention(session: AsyncSession, retention: Retention, now: datetime) -> None:
    """Keeps it."""
    await fleet_store.set_setting(session, RETENTION, msgspec.to_builtins(retention), now)


async def forget_audit(database: Database, before: datetime) -> int:
    """Drops audit rows from before this moment; how many."""
    return await _forget(database, AuditRow, AuditRow.at < before)


async def forget_events(database: Database, before: datetime) -> int:
    """Drops events that no broker took for so long; what servers still have to be told is never dropped."""
    return await _forget(database, OutboxRow, (OutboxRow.topic == EVENT) & (OutboxRow.created_at < before))


async def forget_hours(database: Database, before: datetime) -> int:
    """Drops hours of traffic from before this moment, one hour of one server at a time; days and totals stay."""
    first_kept, dropped_count = int(before.timestamp()) // 3600, 0
    async with database.read() as session:
        query = select(TrafficHourly.server_id, TrafficHourly.hour).where(TrafficHourly.hour < first_kept).distinct()
        slots = (await session.execute(query.order_by(TrafficHourly.hour).limit(AT_ONCE_COUNT))).all()
    for server_id, hour in slots:
        async with database.write() as session:
            done = await session.execute(
                delete(TrafficHourly).where(TrafficHourly.server_id == server_id, TrafficHourly.hour == hour)
            )
            dropped_count += done.rowcount  # type: ignore[attr-defined]
    return dropped_count


async def _forget(database: Database, table: Any, condition: ColumnElement[bool]) -> int:
    dropped_count = 0
    while True:
        async with database.read() as session:
            found: Sequence[int] = (await session.scalars(select(table.id).where(condition).limit(AT_ONCE_COUNT))).all()
        if not found:
            return dropped_count
        async with database.write() as session:
            await session.execute(delete(table).where(table.id.in_(found)))
        dropped_count += len(found)
