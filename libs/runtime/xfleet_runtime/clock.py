"""Time as a thing that can be handed in, so that tests can hold it."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where code gets the time from."""

    def now(self) -> datetime:
        """The moment, aware UTC."""
        ...

    def now_ms(self) -> int:
        """The moment in Unix milliseconds."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go backwards, from an arbitrary start."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The moment, aware UTC."""
        return datetime.now(UTC)

    def now_ms(self) -> int:
        """The moment in Unix milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Seconds since the machine started."""
        return time.monotonic()


class FakeClock:
    """A clock that moves only when told; ships with the product because tests of every part use it."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now_ms = int((start or datetime(2026, 1, 1, tzinfo=UTC)).timestamp() * 1000)
        self._monotonic_s = 0.0

    def now(self) -> datetime:
        """The moment, aware UTC."""
        return datetime.fromtimestamp(self._now_ms / 1000, UTC)

    def now_ms(self) -> int:
        """The moment in Unix milliseconds."""
        return self._now_ms

    def monotonic_s(self) -> float:
        """Seconds advanced so far."""
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        self._now_ms += int(seconds * 1000)
        self._monotonic_s += seconds

    def jump(self, seconds: float) -> None:
        """Changes the wall clock only, as an administrator or NTP does."""
        self._now_ms += int(seconds * 1000)
