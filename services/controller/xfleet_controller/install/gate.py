"""How often one network may fetch: a token bucket each; the networks seen longest ago are forgotten."""

from collections import OrderedDict

from xfleet_contracts.errors import Refusal
from xfleet_controller.auth.throttle import network_of
from xfleet_controller.servers.presence import Bucket

BURST_COUNT = 120
PER_S = 4
ADDRESSES_KEPT = 4096


class TooManyFetches(Refusal):
    """More than any machine needs to join."""

    code = "rate_limited"
    status = 429
    message = "Too many requests from this address. Wait a minute."


class Gate:
    """Lets machines join and nobody scrape."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def pass_through(self, address: str, now_s: float) -> None:
        """Raises `TooManyFetches`."""
        network = network_of(address)
        bucket = self._buckets.pop(network, None)
        if bucket is None:
            bucket = Bucket(filled_at_s=now_s, burst=BURST_COUNT, per_s=PER_S, tokens=BURST_COUNT)
        self._buckets[network] = bucket
        while len(self._buckets) > ADDRESSES_KEPT:
            self._buckets.popitem(last=False)
        if not bucket.take(now_s):
            raise TooManyFetches(retry_after_s=60)
