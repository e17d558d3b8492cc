"""How many orders one admin may send to one server in a minute, by what they cost."""

from collections import deque

from xfleet_contracts.commands import PER_MINUTE, Weight
from xfleet_contracts.errors import Refusal
from xfleet_runtime.clock import Clock

WINDOW_S = 60.0
MAX_KEYS = 20_000


class TooManyOrders(Refusal):
    """More orders than one admin may send to one server in a minute."""

    code = "rate_limited"
    status = 429
    message = "Too many orders to this server within a minute. Wait a little, then try again."


class OrderLimits:
    """The orders of the last minute, per admin, server and weight."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._taken: dict[tuple[str, int, Weight], deque[float]] = {}

    def take(self, who: str, server_id: int, weight: Weight) -> None:
        """Counts one more. Raises `TooManyOrders`, which says after how many seconds to come back."""
        limit = PER_MINUTE.get(weight)
        if limit is None:
            return
        now_s = self._clock.monotonic_s()
        taken = self._taken.setdefault((who, server_id, weight), deque())
        while taken and taken[0] <= now_s - WINDOW_S:
            taken.popleft()
        if len(taken) >= limit:
            raise TooManyOrders(retry_after_s=max(1, int(taken[0] + WINDOW_S - now_s) + 1))
        taken.append(now_s)
        if len(self._taken) > MAX_KEYS:
            self._forget(now_s)

    def _forget(self, now_s: float) -> None:
        """Drops whoever sent nothing within the last minute."""
        self._taken = {key: taken for key, taken in self._taken.items() if taken and taken[-1] > now_s - WINDOW_S}
