"""Presence: who is there, from heartbeats, in memory; written to the database set-based and at transitions.

Blind is not offline: nobody is declared offline before our own subscription has stood for `OFFLINE_AFTER_S`.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from xfleet_contracts import codec, subjects
from xfleet_contracts.errors import Refusal
from xfleet_contracts.heartbeat import HEARTBEAT_INTERVAL_S, OFFLINE_AFTER_S, STALE_AFTER_S, Heartbeat
from xfleet_runtime.broker import Incoming
from xfleet_runtime.clock import Clock
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
ONLINE = "online"
STALE = "stale"
OFFLINE = "offline"
PENDING = "pending"

BEATS_BURST_COUNT = 20
BEATS_PER_S = 2.0
INSTANCES_KEPT_COUNT = 4
IN_FLIGHT_S = 2.0
"""A beat may reach us this long after its sender died."""


@dataclass(kw_only=True)
class Bucket:
    """A token bucket: how many messages a server may still send now."""

    filled_at_s: float
    burst: float = BEATS_BURST_COUNT
    per_s: float = BEATS_PER_S
    tokens: float = BEATS_BURST_COUNT

    def take(self, now_s: float) -> bool:
        """Whether one more is allowed."""
        self.tokens = min(self.burst, self.tokens + (now_s - self.filled_at_s) * self.per_s)
        self.filled_at_s = now_s
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass(kw_only=True)
class Seen:
    """What is known about one server's presence."""

    beat: Heartbeat
    """The newest beat."""
    received_at_ms: int
    received_at_s: float
    """On the monotonic clock."""
    beats: dict[str, tuple[Heartbeat, float]] = field(default_factory=dict[str, tuple[Heartbeat, float]])
    """Newest beat per instance, for telling clones."""
    first_heard_s: dict[str, float] = field(default_factory=dict[str, float])
    """When each of these instances was first heard, successors after predecessors."""
    unsaved: bool = True
    told_error: str = ""
    """Xray's last error as it was written down."""


class Presence:
    """The newest beat of every server, and what status follows from it."""

    def __init__(self, clock: Clock, *, heartbeat_interval_s: float = HEARTBEAT_INTERVAL_S) -> None:
        scale = heartbeat_interval_s / HEARTBEAT_INTERVAL_S
        self.stale_after_s = STALE_AFTER_S * scale
        self.offline_after_s = OFFLINE_AFTER_S * scale
        self.refused_count: Counter[str] = Counter()
        """Refused beats by reason."""
        self.on_beat: list[Callable[[str, Heartbeat], None]] = []
        """Called for every accepted beat."""
        self.on_instance: list[Callable[[str, Heartbeat], None]] = []
        """Called when a server is heard as a new process."""
        self.on_double: list[Callable[[str, tuple[str, str]], None]] = []
        """Called when two living processes speak as one server: an instance that beats after its successor did."""
        self.on_touch: list[Callable[[str], None]] = []
        """Called whenever anything about a server's presence changed."""
        self._clock = clock
        self._seen: dict[str, Seen] = {}
        self._buckets: dict[str, Bucket] = {}
        self._gone: set[str] = set()
        self._known: set[str] | None = None
        self._listening_since_s: float | None = None
        self._watchers: set[asyncio.Queue[str]] = set()
        self._logged: set[tuple[str, str]] = set()

    def now_listening(self) -> None:
        """Our subscription stands (again) from now on."""
        self._listening_since_s = self._clock.monotonic_s()

    def now_deaf(self) -> None:
        """Our subscription does not stand: nothing can be concluded from silence."""
        self._listening_since_s = None

    def now_gone(self, sid: str) -> None:
        """It was cut off by us: offline until it is heard again."""
        self._gone.add(sid)
        self.touch(sid)

    @property
    def is_listening(self) -> bool:
        """Whether our subscription stands: otherwise silence says nothing."""
        return self._listening_since_s is not None

    def set_known(self, sids: set[str]) -> None:
        """The servers there are; beats of others are refused, and forgotten when deleted."""
        self._known = sids
        self._gone &= sids
        for sid in set(self._seen) - sids:
            del self._seen[sid]
            self.touch(sid)

    async def on_heartbeat(self, message: Incoming) -> None:
        """Takes a beat from the bus; a bad one is refused, counted and logged once per server and reason."""
        try:
            sid = subjects.sid_of(message.subject)
            reason = self._reason_to_refuse(sid)
            if reason:
                self._refuse(sid, reason)
                return
            beat = codec.decode(message.payload, Heartbeat)
        except Refusal as refusal:
            self._refuse(message.subject.split(".")[2] if message.subject.count(".") > 1 else "", refusal.code)
            return
        self.take(sid, beat)

    def take(self, sid: str, beat: Heartbeat) -> None:
        """Takes a decoded beat."""
        now_s = self._clock.monotonic_s()
        seen = self._seen.get(sid)
        before = self.status(sid)
        self._gone.discard(sid)
        if seen is not None and beat.instance in seen.beats and beat.seq <= seen.beats[beat.instance][0].seq:
            self._refuse(sid, "older_beat")
            return
        fresh_instance = seen is None or beat.instance not in seen.beats
        if seen is not None and not fresh_instance:
            self._compare(sid, seen, beat, now_s)
        if seen is None:
            seen = Seen(beat=beat, received_at_ms=self._clock.now_ms(), received_at_s=now_s)
            self._seen[sid] = seen
        seen.beat, seen.received_at_ms, seen.received_at_s, seen.unsaved = beat, self._clock.now_ms(), now_s, True
        seen.beats[beat.instance] = (beat, now_s)
        seen.first_heard_s.setdefault(beat.instance, now_s)
        while len(seen.beats) > INSTANCES_KEPT_COUNT:
            oldest = min(seen.beats, key=lambda each: seen.beats[each][1])
            del seen.beats[oldest], seen.first_heard_s[oldest]
        for callback in (*self.on_beat, *(self.on_instance if fresh_instance else ())):
            callback(sid, beat)
        if before != ONLINE:
            _log.info("server online", sid=sid)
        self.touch(sid)

    def _compare(self, sid: str, seen: Seen, beat: Heartbeat, now_s: float) -> None:
        """A process that goes on beating after its successor began, and not just because a beat was on the way."""
        in_order = list(seen.first_heard_s)
        for successor in in_order[in_order.index(beat.instance) + 1 :]:
            is_settled = now_s - seen.first_heard_s[successor] > IN_FLIGHT_S
            if is_settled and now_s - seen.beats[successor][1] < self.offline_after_s:
                for callback in self.on_double:
                    callback(sid, (beat.instance, successor))

    def get(self, sid: str) -> Seen | None:
        """What is known about a server; None when it was never heard by this controller."""
        return self._seen.get(sid)

    def status(self, sid: str, stored: str = PENDING) -> str:
        """online, stale or offline; `stored` is the answer while we cannot know better."""
        seen, now_s = self._seen.get(sid), self._clock.monotonic_s()
        if sid in self._gone:
            return OFFLINE
        if seen is not None and now_s - seen.received_at_s < self.stale_after_s:
            return ONLINE
        if self._listening_since_s is None:
            return STALE if stored == ONLINE or seen is not None else stored
        silent_s = now_s - max(self._listening_since_s, seen.received_at_s if seen else 0.0)
        if silent_s >= self.offline_after_s:
            return PENDING if stored == PENDING and seen is None else OFFLINE
        if seen is not None:
            return STALE
        return STALE if stored == ONLINE else stored

    def is_online(self, sid: str) -> bool:
        """Whether the server beats now."""
        return self.status(sid) == ONLINE

    def instance(self, sid: str) -> str:
        """The agent process heard last; empty when unknown."""
        seen = self._seen.get(sid)
        return seen.beat.instance if seen is not None else ""

    def live_starts(self, sid: str) -> dict[str, str]:
        """Xray start by agent instance, of every instance heard within `offline_after_s`."""
        seen, now_s = self._seen.get(sid), self._clock.monotonic_s()
        if seen is None:
            return {}
        return {
            instance: beat.xray.start_id
            for instance, (beat, at_s) in seen.beats.items()
            if now_s - at_s < self.offline_after_s
        }

    def online_clients(self) -> set[int]:
        """Refs of the clients with an open stream on any server that is online."""
        return {ref for sid, seen in self._seen.items() if self.is_online(sid) for ref in seen.beat.online}

    def list_seen(self) -> list[tuple[str, Seen]]:
        """Every server heard, by sid."""
        return sorted(self._seen.items())

    def take_unsaved(self) -> dict[str, Seen]:
        """The servers heard since this was last called."""
        unsaved = {sid: seen for sid, seen in self._seen.items() if seen.unsaved}
        for seen in unsaved.values():
            seen.unsaved = False
        return unsaved

    def touch(self, sid: str) -> None:
        """Tells those who watch that something about the server changed."""
        for callback in self.on_touch:
            callback(sid)
        for watcher in self._watchers:
            if watcher.full():
                watcher.get_nowait()
            watcher.put_nowait(sid)

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[AsyncIterator[str]]:
        """An endless iterator of the sids whose presence changed, for live pages."""
        queue: asyncio.Queue[str] = asyncio.Queue(maxsize=2000)
        self._watchers.add(queue)

        async def changed() -> AsyncIterator[str]:
            while True:
                yield await queue.get()

        try:
            yield changed()
        finally:
            self._watchers.discard(queue)

    def _reason_to_refuse(self, sid: str) -> str:
        if self._known is not None and sid not in self._known:
            return "unknown_server"
        bucket = self._buckets.setdefault(sid, Bucket(filled_at_s=self._clock.monotonic_s()))
        return "" if bucket.take(self._clock.monotonic_s()) else "too_fast"

    def _refuse(self, sid: str, reason: str) -> None:
        self.refused_count[reason] += 1
        if (sid, reason) not in self._logged and len(self._logged) < BEATS_BURST_COUNT * 1000:
            self._logged.add((sid, reason))
            _log.warning("heartbeat refused", sid=sid, reason=reason)
