"""The outbox: what a transaction leaves to be done after its commit, and the loop that does it.

Rows are claimed, never walked by an id: transactions commit out of order, and a cursor would step over late ones.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts import codec, subjects
from xfleet_contracts.events import FleetEvent
from xfleet_controller.db import OUTBOX_TOPICS, Database
from xfleet_controller.fleet.models import OutboxRow
from xfleet_runtime.broker import BrokerLink, BrokerOutage
from xfleet_runtime.clock import Clock
from xfleet_runtime.ids import new_id
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
STATE = "state"
EVENT = "event"
CLAIM_COUNT = 200
CLAIM_S = 30
IDLE_S = 5.0


async def note_dirty_servers(session: AsyncSession, server_ids: Sequence[int], now: datetime) -> None:
    """Leaves word that the desired state of these servers moved on."""
    if server_ids:
        values = [{"topic": STATE, "server_id": each, "payload": {}, "created_at": now} for each in server_ids]
        await session.execute(insert(OutboxRow), values)
        session.info.setdefault(OUTBOX_TOPICS, set()).add(STATE)


def note_event(
    session: AsyncSession,
    kind: str,
    now: datetime,
    *,
    server: str = "",
    subject: str = "",
    details: dict[str, Any] | None = None,
) -> None:
    """Leaves an event to be published."""
    event = FleetEvent(
        id=new_id(), type=kind, at_ms=int(now.timestamp() * 1000), server=server, subject=subject, details=details or {}
    )
    _add(session, OutboxRow(topic=EVENT, payload=codec.redact(event), created_at=now))


def _add(session: AsyncSession, row: OutboxRow) -> None:
    session.add(row)
    session.info.setdefault(OUTBOX_TOPICS, set()).add(row.topic)


class Outbox:
    """Empties the outbox: dirty servers go to the dispatcher, events to the stream."""

    def __init__(
        self, database: Database, clock: Clock, link: BrokerLink, on_dirty: Callable[[int], Awaitable[None] | None]
    ) -> None:
        self._database = database
        self._clock = clock
        self._link = link
        self._on_dirty = on_dirty
        self._woken = asyncio.Event()
        database.after_commit.append(lambda _topics: self._woken.set())

    async def run(self) -> None:
        """Claims and does, for ever; wakes at once when this process commits something."""
        while True:
            self._woken.clear()
            states_count = await self._do_states()
            events_count = await self._do_events()
            if states_count + events_count < CLAIM_COUNT:
                try:
                    async with asyncio.timeout(IDLE_S):
                        await self._woken.wait()
                except TimeoutError:
                    continue

    async def _do_states(self) -> int:
        async with self._database.read() as session:
            if await session.scalar(select(OutboxRow.id).where(OutboxRow.topic == STATE).limit(1)) is None:
                return 0
        async with self._database.write() as session:
            rows = (await session.scalars(_due(STATE, self._clock.now()))).all()
            await session.execute(delete(OutboxRow).where(OutboxRow.id.in_([row.id for row in rows])))
        for server_id in sorted({row.server_id for row in rows if row.server_id is not None}):
            waiting = self._on_dirty(server_id)
            if waiting is not None:
                await waiting
        return len(rows)

    async def _do_events(self) -> int:
        if not self._link.connected:
            return 0
        now = self._clock.now()
        async with self._database.read() as session:
            if await session.scalar(_due(EVENT, now).limit(1)) is None:
                return 0
        async with self._database.write() as session:
            rows = (await session.scalars(_due(EVENT, now))).all()
            await session.execute(
                update(OutboxRow)
                .where(OutboxRow.id.in_([row.id for row in rows]))
                .values(not_before_at=now + timedelta(seconds=CLAIM_S), attempts_count=OutboxRow.attempts_count + 1)
            )
        done = [row.id for row in rows if await self._publish(row.payload)]
        if done:
            async with self._database.write() as session:
                await session.execute(delete(OutboxRow).where(OutboxRow.id.in_(done)))
        return len(done)

    async def _publish(self, payload: dict[str, Any]) -> bool:
        try:
            await self._link.publish_stored(
                subjects.event(str(payload["type"])), codec.encode(payload), message_id=str(payload["id"])
            )
        except BrokerOutage as outage:
            _log.info("an event waits in the outbox", reason=str(outage))
            return False
        return True


def _due(topic: str, now: datetime) -> Any:
    return (
        select(OutboxRow)
        .where(OutboxRow.topic == topic, or_(OutboxRow.not_before_at.is_(None), OutboxRow.not_before_at <= now))
        .order_by(OutboxRow.id)
        .limit(CLAIM_COUNT)
        .with_for_update(skip_locked=True)
    )
