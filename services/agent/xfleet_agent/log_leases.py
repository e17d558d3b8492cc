"""Log leases: sends the new lines of a log while somebody looks, and stops by itself when nobody does."""

import asyncio
import re
import time
from typing import NamedTuple

from xfleet_agent.aside import aside
from xfleet_agent.fleet_clock import FleetClock
from xfleet_agent.logs import Harvest, LogFiles, Tail
from xfleet_contracts import codec, subjects
from xfleet_contracts.commands import RATE_LIMITED
from xfleet_contracts.errors import MessageMalformed, Refusal
from xfleet_contracts.logs import LEASE_S, MAX_LEASES, LogLease, LogLines
from xfleet_runtime.broker import BrokerLink, BrokerOutage
from xfleet_runtime.log import get_logger

EVERY_S = 0.5
_LEASE = re.compile(r"[a-z0-9]{1,64}")
_log = get_logger(__name__)


class _Asked(NamedTuple):
    log: str
    contains: str


class _Lease:
    def __init__(self, name: str, asked: _Asked, tail: Tail) -> None:
        self.name = name
        self.asked = asked
        self.tail = tail
        self.until_s = 0.0
        self.seq = 0
        self.dropped_count = 0


class LogLeases:
    """Up to `MAX_LEASES` live logs, in memory only."""

    def __init__(self, files: LogFiles, clock: FleetClock, link: BrokerLink, sid: str) -> None:
        self._files = files
        self._clock = clock
        self._link = link
        self._sid = sid
        self._leases: dict[str, _Lease] = {}
        self._refused: list[str] = []
        self._wake = asyncio.Event()

    async def take(self, order: LogLease) -> None:
        """Begins, renews or ends a lease. Raises `MessageMalformed` for a name that is no token of a subject."""
        if not _LEASE.fullmatch(order.lease):
            raise MessageMalformed("A lease is named by lower-case letters and digits.", field="lease")
        left_s = min((order.until_ms - self._clock.now_ms()) / 1000, LEASE_S)
        if left_s <= 0:
            self._end(order.lease)
            return
        asked = _Asked(order.log, order.contains)
        lease = self._leases.get(order.lease)
        if lease is not None and lease.asked != asked:
            self._end(order.lease)
            lease = None
        if lease is None:
            if len(self._leases) >= MAX_LEASES:
                self._refused = [*self._refused, order.lease][-MAX_LEASES:]
                self._wake.set()
                return
            lease = _Lease(order.lease, asked, Tail(self._files, *asked))
            self._leases[order.lease] = lease
        lease.until_s = time.monotonic() + left_s
        self._wake.set()

    async def run(self) -> None:
        """Sends about twice a second; sleeps while nobody looks."""
        while True:
            for name in self._refused:
                await self._send(name, LogLines(seq=1, error=RATE_LIMITED))
            self._refused.clear()
            if not self._leases:
                self._wake.clear()
                await self._wake.wait()
                continue
            for lease in list(self._leases.values()):
                await self._serve(lease)
            await asyncio.sleep(EVERY_S)

    async def _serve(self, lease: _Lease) -> None:
        if time.monotonic() > lease.until_s:
            self._end(lease.name)
            return
        try:
            harvest = await aside(lease.tail.read)
        except Refusal as refusal:
            await self._send(lease.name, LogLines(seq=lease.seq + 1, error=refusal.code))
            self._end(lease.name)
            return
        except OSError as error:
            _log.warning("a live log could not be read", log=lease.asked.log, reason=error.strerror)
            self._end(lease.name)
            return
        if self._leases.get(lease.name) is lease:
            await self._tell(lease, harvest)

    async def _tell(self, lease: _Lease, harvest: Harvest) -> None:
        lease.dropped_count += harvest.dropped_count
        if not harvest.lines and not lease.dropped_count:
            return
        lines = LogLines(seq=lease.seq + 1, lines=tuple(harvest.lines), dropped_count=lease.dropped_count)
        if await self._send(lease.name, lines):
            lease.seq += 1
            lease.dropped_count = 0
        else:
            lease.dropped_count += len(harvest.lines)

    async def _send(self, name: str, lines: LogLines) -> bool:
        try:
            await self._link.publish(subjects.log_lines(self._sid, name), codec.encode(lines))
        except BrokerOutage:
            return False
        return True

    def _end(self, name: str) -> None:
        lease = self._leases.pop(name, None)
        if lease is not None:
            lease.tail.close()
