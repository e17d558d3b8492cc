"""Roll-ups: hours and days per client and inbound, built from stored batches, each batch exactly once.

A batch is marked in the transaction that adds it, so a kill in the middle repeats nothing. The more there is to add,
the longer it waits and the more readings of the same client merge into one row.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from xfleet_contracts.traffic import ClientRow
from xfleet_controller.db import Database
from xfleet_controller.traffic import rollup_store
from xfleet_controller.traffic.ledger import LedgerSettings, counted
from xfleet_controller.traffic.metrics import LedgerMetrics
from xfleet_controller.traffic.reading import parse, unpack
from xfleet_controller.traffic.rollup_store import Waiting
from xfleet_runtime.clock import Clock
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
ROWS_AT_ONCE = 60_000
BATCHES_AT_ONCE = 400
TICK_S = 5.0
PATIENCE_ROWS_PER_S = 2000
MOST_PATIENCE_S = 300.0
TIDY_EVERY_S = 300.0


class _ClaimedElsewhere(Exception):  # noqa: N818  rolls our transaction back
    """Another controller rolled some of these batches up meanwhile."""


class RolledUp(msgspec.Struct):
    """Sums of some batches: up and down bytes by key."""

    hours: dict[tuple[int, int, int, int], list[int]] = {}
    """By client, inbound, hour and server."""
    outbounds: dict[tuple[int, str, int], list[int]] = {}
    """By server, tag and hour."""


class RollUp:
    """Rolls up what waits; any number of controllers may try, one succeeds per batch."""

    def __init__(
        self, database: Database, clock: Clock, metrics: LedgerMetrics, settings: LedgerSettings | None = None
    ) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._settings = settings or LedgerSettings()

    async def run(self) -> None:
        """Rolls up and tidies, for ever."""
        tidied_s = self._clock.monotonic_s() - TIDY_EVERY_S
        while True:
            await asyncio.sleep(TICK_S)
            if await self.is_due():
                await self.step()
            if self._clock.monotonic_s() - tidied_s >= TIDY_EVERY_S:
                await self.tidy()
                tidied_s = self._clock.monotonic_s()

    async def is_due(self) -> bool:
        """Whether enough waits for long enough."""
        async with self._database.read() as session:
            batches_count, rows_count, oldest_at = await rollup_store.count_waiting(session)
        self._metrics.waiting_bodies.set(batches_count)
        if oldest_at is None:
            return False
        patience_s = min(MOST_PATIENCE_S, max(TICK_S, rows_count / PATIENCE_ROWS_PER_S))
        return (self._clock.now() - oldest_at).total_seconds() >= patience_s

    async def step(self, until: datetime | None = None) -> int:
        """Rolls up everything that arrived until now; returns how many batches."""
        horizon = until or self._clock.now()
        done_count = 0
        while True:
            async with self._database.read() as session:
                waiting = await rollup_store.list_waiting(session, horizon, BATCHES_AT_ONCE, ROWS_AT_ONCE)
            if not waiting:
                return done_count
            columns = await asyncio.to_thread(_columns_of, waiting)
            try:
                async with self._database.write() as session:
                    if not await rollup_store.claim(session, waiting):
                        raise _ClaimedElsewhere
                    await rollup_store.add(session, columns)
            except _ClaimedElsewhere:
                return done_count
            done_count += len(waiting)

    def keep_minutes(self, hours: int) -> None:
        """Changes how long minutes are kept."""
        self._settings = msgspec.structs.replace(self._settings, minutes_keep_hours=hours)

    async def tidy(self) -> None:
        """Keeps stored bodies, rejected batches and minutes within their limits."""
        now, settings = self._clock.now(), self._settings
        while True:
            async with self._database.write() as session:
                stripped_count = await rollup_store.strip_bodies(session, settings.bodies_max_bytes)
            if not stripped_count:
                break
            _log.info("the oldest stored batches lost their bodies", count=stripped_count)
        async with self._database.write() as session:
            await rollup_store.forget_names(session, now - timedelta(days=settings.bodies_keep_days))
            await rollup_store.forget_minutes(session, now - timedelta(hours=settings.minutes_keep_hours))
            await rollup_store.forget_rejected(session, settings.rejected_max_bytes)


def _columns_of(batches: Sequence[Waiting]) -> rollup_store.Columns:
    sums = add_up(batches)
    return rollup_store.columns_of(sums.hours, sums.outbounds)


def add_up(batches: Sequence[Waiting]) -> RolledUp:
    """The sums of these batches. Pure."""
    sums = RolledUp()
    for batch in batches:
        clients, tags = counted(parse(unpack(batch.body)), batch.skipped)
        _add_clients(sums.hours, batch.server_id, clients)
        for tag in tags:
            if tag.direction == "outbound":
                both = sums.outbounds.setdefault((batch.server_id, tag.tag, tag.hour), [0, 0])
                both[0] += tag.up_bytes
                both[1] += tag.down_bytes
    return sums


def _add_clients(hours: dict[tuple[int, int, int, int], list[int]], server_id: int, rows: Sequence[ClientRow]) -> None:
    for row in rows:
        key = (row.client, row.inbound, row.hour, server_id)
        both = hours.get(key)
        if both is None:
            hours[key] = [row.up_bytes, row.down_bytes]
        else:
            both[0] += row.up_bytes
            both[1] += row.down_bytes
