"""Live rates per server, from the batches this controller committed last."""

import msgspec

from xfleet_controller.traffic.ledger import Commit
from xfleet_runtime.clock import Clock

FRESH_S = 35.0


class Rate(msgspec.Struct, frozen=True):
    """Bytes per second."""

    up_bytes_s: float = 0
    down_bytes_s: float = 0


class LiveRates:
    """What each server's clients moved per second in its last interval."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rates: dict[int, tuple[float, Rate]] = {}

    def note(self, commit: Commit) -> None:
        """Takes what was committed; batches of one interval are added together."""
        sums: dict[int, list[float]] = {}
        for batch in commit.accepted:
            seconds = max(1.0, (batch.to_at - batch.from_at).total_seconds())
            both = sums.setdefault(batch.server_id, [0, 0, 1.0])
            both[0] += sum(row.up_bytes for row in batch.clients)
            both[1] += sum(row.down_bytes for row in batch.clients)
            both[2] = max(both[2], seconds)
        now_s = self._clock.monotonic_s()
        for server_id, (up, down, seconds) in sums.items():
            self._rates[server_id] = (now_s, Rate(up / seconds, down / seconds))

    def get(self, server_id: int) -> Rate:
        """The server's rate; nothing when it told nothing lately."""
        noted_s, rate = self._rates.get(server_id, (0.0, Rate()))
        return rate if self._clock.monotonic_s() - noted_s < FRESH_S else Rate()
