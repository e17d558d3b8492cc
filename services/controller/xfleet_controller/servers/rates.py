"""The network rates of every server over the last minutes, kept in memory for the small lines on the cards."""

from collections import deque

from xfleet_contracts.heartbeat import Heartbeat

KEPT_COUNT = 60


class RateHistory:
    """The last rates each server reported; fed by every accepted heartbeat."""

    def __init__(self) -> None:
        self._rates: dict[str, deque[tuple[int, int]]] = {}

    def note(self, sid: str, beat: Heartbeat) -> None:
        """Remembers a beat's rates."""
        rates = self._rates.setdefault(sid, deque(maxlen=KEPT_COUNT))
        rates.append((beat.host.network_up_bytes_s, beat.host.network_down_bytes_s))

    def of(self, sid: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """What left and what reached the server, in bytes a second, oldest first."""
        rates = self._rates.get(sid, ())
        return tuple(float(up) for up, _ in rates), tuple(float(down) for _, down in rates)
