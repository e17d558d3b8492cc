"""Meter: reads Xray's counters, never resets them, and hands what they moved to the spool."""

import asyncio
import os
import sqlite3
import time
from collections.abc import Iterable

from xfleet_agent.database import Worker
from xfleet_agent.events import Events
from xfleet_agent.fleet_clock import FleetClock
from xfleet_agent.processes import RunningXray
from xfleet_agent.spool import Reading, Spool
from xfleet_contracts.traffic import Gap
from xfleet_runtime.log import get_logger
from xfleet_xraykit.counters import Counter, parse_email, parse_inbound_tag
from xfleet_xraykit.errors import XrayDown, XrayHung
from xfleet_xraykit.process import StartedXray

QUIET_POLL_S = 0.1
QUIET_TIMEOUT_S = 3.0
_log = get_logger(__name__)


def counters_of(found: Iterable[Counter]) -> dict[str, tuple[int, int]]:
    """Spool name to (up, down) bytes, for every counter that is ours."""
    totals: dict[str, tuple[int, int]] = {}
    for counter in found:
        name = _name(counter)
        if name is None:
            continue
        up, down = totals.get(name, (0, 0))
        if counter.direction == "uplink":
            totals[name] = (up + counter.value_bytes, down)
        else:
            totals[name] = (up, down + counter.value_bytes)
    return totals


def _name(counter: Counter) -> str | None:
    if counter.scope == "user":
        return f"c:{counter.name}" if parse_email(counter.name) else None
    if counter.scope == "inbound":
        ref = parse_inbound_tag(counter.name)
        return f"i:{ref}" if ref else None
    return f"o:{counter.name}"


def age_s(record: StartedXray) -> float:
    """How long the process runs already."""
    ticks_s = record.start_time_ticks / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks_s)


class Meter:
    """Reads one Xray after the other; at most one reading at a time, so an older one never follows a newer."""

    def __init__(self, spool: Spool, worker: Worker, clock: FleetClock, events: Events) -> None:
        self._spool = spool
        self._worker = worker
        self._clock = clock
        self._events = events
        self._lock = asyncio.Lock()
        self.moved: frozenset[int] = frozenset()
        """Clients whose counters moved between the last two readings."""
        self.last_error = ""
        """Why the last reading was not stored; empty when it was."""

    async def read(self, running: RunningXray) -> Reading:
        """Reads and stores; durable before it returns. Raises `XrayDown`, `XrayHung` or `sqlite3.Error`."""
        async with self._lock:
            counters = counters_of(await running.api.query_counters())
            reading = await self._worker.run(self._spool.add_reading, running.start_id, self._clock.now_ms(), counters)
        if reading.backwards:
            self._events.tell("counter_went_backwards", counters=list(reading.backwards[:10]), start=running.start_id)
        return reading

    async def read_all(self, xrays: Iterable[RunningXray]) -> None:
        """One round over every Xray that counts; what fails is tried again next time, and nothing is lost by that."""
        moved: set[int] = set()
        for running in xrays:
            try:
                moved.update((await self.read(running)).moved)
            except (XrayDown, XrayHung) as error:
                _log.warning("counters could not be read", error=str(error), start=running.start_id)
            except sqlite3.Error as error:
                if not self.last_error:
                    self._events.tell("spool_unwritable", error=str(error))
                self.last_error = f"The spool cannot be written: {error}."
                self._spool.forget_caches()
                return
        if self.last_error:
            self.last_error = ""
            self._events.tell("spool_writable")
        self.moved = frozenset(moved)

    async def read_until_quiet(self, running: RunningXray, *, timeout_s: float = QUIET_TIMEOUT_S) -> bool:
        """Reads until two readings agree; False when streams still moved at the end of the time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            reading = await self.read(running)
            if not reading.changed_count:
                return True
            if loop.time() > deadline:
                return False
            await asyncio.sleep(QUIET_POLL_S)

    async def begin(self, running: RunningXray) -> None:
        """A new or adopted Xray counts; what was never read of it goes back to its start."""
        began_ms = self._clock.now_ms() - int(age_s(running.record) * 1000)
        try:
            await self._worker.run(self._spool.begin_start, running.start_id, began_ms)
        except sqlite3.Error as error:
            self.last_error = f"The spool cannot be written: {error}."

    async def finish(self, start_id: str, *, lost: str = "") -> None:
        """An Xray is gone; `lost` says why what it moved since the last reading can never be known."""
        try:
            await self._finish(start_id, lost)
        except sqlite3.Error as error:
            self.last_error = f"The spool cannot be written: {error}."
            self._events.tell("spool_unwritable", error=str(error))

    async def _finish(self, start_id: str, lost: str) -> None:
        now_ms = self._clock.now_ms()
        last_ms = await self._worker.run(self._spool.last_read_ms, start_id)
        if lost and last_ms is not None:
            gap = Gap(
                from_at_ms=last_ms,
                to_at_ms=max(now_ms, last_ms),
                reason="host_died" if lost == "host_died" else "xray_died",
                start_id=self._spool.start_of(start_id),
            )
            await self._worker.run(self._spool.add_gap, gap)
        await self._worker.run(self._spool.end_start, start_id)

    async def keep_only(self, xrays: Iterable[RunningXray]) -> None:
        """Forgets the marks of every Xray that is none of these."""
        await self._worker.run(self._spool.end_starts_except, tuple(each.start_id for each in xrays))
