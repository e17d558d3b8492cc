"""Few questions per person: a token bucket, so that nobody floods the panel through the bot."""

from xfleet_runtime.clock import Clock

BURST_COUNT = 6
REFILL_PER_S = 0.5
MAX_PEOPLE = 10_000


class Throttle:
    """Buckets by Telegram account; the memory they take is bounded."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[int, tuple[float, float]] = {}

    def allows(self, telegram_id: int) -> bool:
        """Takes one token; False when the bucket is empty."""
        now = self._clock.monotonic_s()
        left, since = self._buckets.pop(telegram_id, (float(BURST_COUNT), now))
        left = min(float(BURST_COUNT), left + (now - since) * REFILL_PER_S)
        allowed = left >= 1
        self._buckets[telegram_id] = (left - 1 if allowed else left, now)
        if len(self._buckets) > MAX_PEOPLE:
            del self._buckets[next(iter(self._buckets))]
        return allowed
