"""The controller's time as well as this machine can know it: its clock plus the offset learned from signed messages.

Time never moves backwards within a process. A jump of the machine's clock by more than a day is not believed, and
until a signed message tells the time again nobody is cut for having expired.
"""

from xfleet_runtime.clock import Clock

DAY_MS = 86_400_000
DISORDER_MS = 60_000
"""Messages of several controllers may overtake each other, and their clocks differ, by this much."""
BACKWARDS_MS = 1000
"""Smaller steps back are left to the operating system's slewing."""


class FleetClock:
    """Corrected time; what is handed in comes from the previous process.

    `signed_ms` is the newest moment a controller signed for us: an older message may be replayed and teaches nothing.
    """

    def __init__(self, clock: Clock, *, offset_ms: int = 0, last_seen_ms: int = 0, signed_ms: int = 0) -> None:
        self._clock = clock
        self.offset_ms = offset_ms
        self.signed_ms = signed_ms
        self._learned = False
        self._trusted = True
        self._latest_ms = 0
        if last_seen_ms:
            now_ms = clock.now_ms() + offset_ms
            if now_ms < last_seen_ms - BACKWARDS_MS:
                self.offset_ms += last_seen_ms - now_ms
            self._trusted = now_ms <= last_seen_ms + DAY_MS
        self._wall_ms = clock.now_ms()
        self._monotonic_s = clock.monotonic_s()

    @property
    def trusted(self) -> bool:
        """Whether expiry may be judged by this clock."""
        self._notice_jumps()
        return self._trusted

    def now_ms(self) -> int:
        """The corrected moment in Unix milliseconds."""
        self._notice_jumps()
        self._latest_ms = max(self._latest_ms, self._clock.now_ms() + self.offset_ms)
        return self._latest_ms

    def facts(self) -> dict[str, str]:
        """What the next process must know. A moment we do not believe ourselves would make it cut everybody."""
        if not self.trusted:
            return {"signed_ms": str(self.signed_ms)}
        return {
            "clock_offset_ms": str(self.offset_ms),
            "last_seen_ms": str(self.now_ms()),
            "signed_ms": str(self.signed_ms),
        }

    def learn(self, issued_at_ms: int) -> None:
        """Takes the moment a verified message was issued at: the controller's clock is at least that far."""
        self._notice_jumps()
        if issued_at_ms < self.signed_ms - DISORDER_MS:
            return
        self.signed_ms = max(self.signed_ms, issued_at_ms)
        offset_ms = issued_at_ms - self._clock.now_ms()
        if not self._learned:
            self.offset_ms = offset_ms
            self._latest_ms = 0
            self._learned = True
        else:
            self.offset_ms = max(self.offset_ms, offset_ms)
        self._trusted = True

    def _notice_jumps(self) -> None:
        wall_ms, monotonic_s = self._clock.now_ms(), self._clock.monotonic_s()
        jump_ms = (wall_ms - self._wall_ms) - int((monotonic_s - self._monotonic_s) * 1000)
        self._wall_ms, self._monotonic_s = wall_ms, monotonic_s
        if jump_ms > DAY_MS:
            self.offset_ms -= jump_ms
            self._trusted = False
        elif jump_ms < -BACKWARDS_MS:
            self.offset_ms -= jump_ms
