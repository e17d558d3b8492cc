"""Live logs: one lease per server, log and filter, shared by all who look, renewed while somebody does.

Lines come from agents, who may be broken or hostile: per lease only so many messages a second are taken, per watcher
only so many bytes wait, and what is left out is counted and told.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from xfleet_contracts import codec, subjects
from xfleet_contracts.errors import Refusal
from xfleet_contracts.logs import LEASE_S, LOG_LEASE, MAX_LEASES, MAX_LINE_BYTES, MAX_LINES, LogLease, LogLines
from xfleet_controller.bus import BAD_ANSWER, Commander
from xfleet_controller.servers.presence import Bucket
from xfleet_controller.texts import cleaned
from xfleet_runtime.broker import BrokerLink, BrokerOutage, Incoming
from xfleet_runtime.broker.subscription import Subscription
from xfleet_runtime.clock import Clock
from xfleet_runtime.ids import new_id
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
MAX_WATCHERS = 64
MAX_WAITING_BYTES = 512 * 1024
MESSAGES_BURST, MESSAGES_PER_S = 20, 8
PENDING_MAX = 16
RENEW_EVERY_S = LEASE_S / 3
LOOK_EVERY_S = 1.0
MAX_DROPPED = 10**9
MAX_WORD = 50
PER_BATCH_BYTES = 100
Key = tuple[str, str, str]
"""Server, log and filter."""


class TooManyWatchers(Refusal):
    """More live logs than the controller or an agent carries at once."""

    code = "rate_limited"
    status = 429
    message = "Too many live logs are open. Close some of them."


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """New lines for a watcher."""

    lines: tuple[str, ...] = ()
    dropped_count: int = 0
    """Lines or messages left out before these."""
    error: str = ""
    """Word when the log cannot be read; then nothing follows."""


class Watcher:
    """One who looks: what waits for it is bounded."""

    def __init__(self) -> None:
        self._waiting: deque[Batch] = deque()
        self._waiting_bytes = 0
        self._dropped_count = 0
        self._event = asyncio.Event()

    def give(self, batch: Batch) -> None:
        """Takes new lines; the oldest that wait make room."""
        self._waiting.append(batch)
        self._waiting_bytes += _size(batch)
        while self._waiting_bytes > MAX_WAITING_BYTES and len(self._waiting) > 1:
            oldest = self._waiting.popleft()
            self._waiting_bytes -= _size(oldest)
            self._dropped_count += len(oldest.lines) + oldest.dropped_count
        self._event.set()

    async def next(self, timeout_s: float) -> Batch | None:
        """All lines that wait, in one; None when nothing came in that time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return None
        self._event.clear()
        batches, dropped_count = tuple(self._waiting), self._dropped_count
        self._waiting.clear()
        self._waiting_bytes = self._dropped_count = 0
        return Batch(
            lines=tuple(line for batch in batches for line in batch.lines),
            dropped_count=dropped_count + sum(batch.dropped_count for batch in batches),
            error=next((batch.error for batch in batches if batch.error), ""),
        )


@dataclass(kw_only=True, eq=False)
class Lease:
    """A log that is looked at."""

    name: str
    sid: str
    log: str
    contains: str
    bucket: Bucket
    watchers: set[Watcher] = field(default_factory=set[Watcher])
    renew_at_s: float = 0.0
    seq: int = 0
    ignored_count: int = 0
    """Messages that came too fast, since the last one that was taken."""
    subscription: Subscription | None = None

    @property
    def key(self) -> Key:
        """What watchers share it by."""
        return (self.sid, self.log, self.contains)

    def give(self, batch: Batch) -> None:
        """New lines to all who look."""
        for watcher in self.watchers:
            watcher.give(batch)


class LogHub:
    """All live logs of this controller."""

    def __init__(self, link: BrokerLink, commander: Commander, clock: Clock) -> None:
        self._link = link
        self._commander = commander
        self._clock = clock
        self._leases: dict[Key, Lease] = {}
        self._lock = asyncio.Lock()
        self._woken = asyncio.Event()

    @property
    def leases(self) -> tuple[Lease, ...]:
        """What is looked at now."""
        return tuple(self._leases.values())

    @asynccontextmanager
    async def watching(self, sid: str, log: str, contains: str = "") -> AsyncIterator[Watcher]:
        """New lines of that log while the block lasts. Raises `TooManyWatchers`."""
        watcher = Watcher()
        async with self._lock:
            self.admit(sid, log, contains)
            lease = self._leases.get((sid, log, contains))
            if lease is None:
                lease = await self._open(sid, log, contains)
            lease.watchers.add(watcher)
        self._woken.set()
        try:
            yield watcher
        finally:
            lease.watchers.discard(watcher)
            self._woken.set()

    async def run(self) -> None:
        """Renews what somebody looks at and ends the rest, for ever."""
        while True:
            self._woken.clear()
            for lease in self.leases:
                if not lease.watchers:
                    await self._end(lease)
                elif lease.renew_at_s <= self._clock.monotonic_s():
                    await self._renew(lease)
            try:
                async with asyncio.timeout(LOOK_EVERY_S if self._leases else None):
                    await self._woken.wait()
            except TimeoutError:
                continue

    def admit(self, sid: str, log: str, contains: str) -> None:
        """Raises `TooManyWatchers` when one more cannot be carried."""
        watchers_count = sum(len(lease.watchers) for lease in self._leases.values())
        leases_count = sum(lease.sid == sid for lease in self._leases.values())
        is_new = (sid, log, contains) not in self._leases
        if watchers_count >= MAX_WATCHERS or (is_new and leases_count >= MAX_LEASES):
            raise TooManyWatchers(retry_after_s=30)

    async def _open(self, sid: str, log: str, contains: str) -> Lease:
        bucket = Bucket(
            filled_at_s=self._clock.monotonic_s(), burst=MESSAGES_BURST, per_s=MESSAGES_PER_S, tokens=MESSAGES_BURST
        )
        lease = Lease(name=new_id(), sid=sid, log=log, contains=contains, bucket=bucket)

        async def on_lines(message: Incoming) -> None:
            self._take(lease, message)

        lease.subscription = await self._link.subscribe(
            subjects.log_lines(sid, lease.name), on_lines, pending_max=PENDING_MAX
        )
        self._leases[lease.key] = lease
        await self._renew(lease)
        return lease

    async def _renew(self, lease: Lease) -> None:
        """An agent that is away, or a broker, is told again a little later."""
        until_ms = self._clock.now_ms() + LEASE_S * 1000
        told = await self._tell(lease, until_ms)
        lease.renew_at_s = self._clock.monotonic_s() + (RENEW_EVERY_S if told else LOOK_EVERY_S)

    async def _end(self, lease: Lease) -> None:
        async with self._lock:
            if lease.watchers:
                return
            del self._leases[lease.key]
        if lease.subscription is not None:
            await self._link.unsubscribe(lease.subscription)
        await self._tell(lease, 0)

    async def _tell(self, lease: Lease, until_ms: int) -> bool:
        body = LogLease(lease=lease.name, log=lease.log, until_ms=until_ms, contains=lease.contains)
        try:
            await self._commander.send(lease.sid, LOG_LEASE, body)
        except BrokerOutage as outage:
            _log.info("a live log could not be asked for", sid=lease.sid, reason=str(outage))
            return False
        return True

    def _take(self, lease: Lease, message: Incoming) -> None:
        if not lease.bucket.take(self._clock.monotonic_s()):
            lease.ignored_count += 1
            return
        try:
            lines = codec.decode(message.payload, LogLines)
        except Refusal as refusal:
            lease.give(Batch(error=BAD_ANSWER))
            _log.info("live lines cannot be read", sid=lease.sid, reason=refusal.code)
            return
        if lines.seq <= lease.seq and lines.seq != 1:  # heard twice; from 1 again counts a new agent process
            return
        lease.seq = lines.seq
        shown = lines.lines[-MAX_LINES:]
        left_out = min(max(0, lines.dropped_count), MAX_DROPPED) + len(lines.lines) - len(shown) + lease.ignored_count
        lease.ignored_count = 0
        error = cleaned(lines.error, MAX_WORD)
        lease.give(Batch(lines=tuple(line_of(line) for line in shown), dropped_count=left_out, error=error))


def line_of(line: str) -> str:
    """A line as it may be shown: without control characters, cut to a length."""
    return "".join(
        char if char >= " " and char != "\x7f" else "·" for char in line[:MAX_LINE_BYTES].replace("\t", "  ")
    )


def _size(batch: Batch) -> int:
    return sum(len(line) for line in batch.lines) + PER_BATCH_BYTES
