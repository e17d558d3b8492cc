"""What is remembered of requests over HTTPS, so that they are few and each is answered once."""

from collections import OrderedDict
from datetime import timedelta

from xfleet_contracts.errors import Refusal
from xfleet_controller.auth.throttle import network_of
from xfleet_controller.servers.presence import Bucket

STALE_AFTER = timedelta(minutes=5)
BURST_COUNT, PER_S = 20, 0.5
"""Tries per network; an agent that is refused asks once in minutes."""
ALL_BURST_COUNT, ALL_PER_S = 500, 50
REMEMBERED_COUNT = 20_000


class RenewalRepeated(Refusal):
    """A request that was seen before."""

    code = "nonce_used"
    status = 409
    message = "This request was answered before. Make a new one."


class TooManyReturns(Refusal):
    """More tries than any fleet behind one address needs."""

    code = "rate_limited"
    status = 429
    message = "Too many tries from this address. Wait a minute, then try again."


class Returns:
    """What is remembered of requests, so that they are few and each is answered once."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._all = Bucket(filled_at_s=0, burst=ALL_BURST_COUNT, per_s=ALL_PER_S, tokens=ALL_BURST_COUNT)
        self._nonces: OrderedDict[tuple[str, str], float] = OrderedDict()

    def let_in(self, address: str, now_s: float) -> None:
        """Before anything is known of who asks. Raises `TooManyReturns`."""
        network = network_of(address)
        fresh = Bucket(filled_at_s=now_s, burst=BURST_COUNT, per_s=PER_S, tokens=BURST_COUNT)
        bucket = self._buckets[network] = self._buckets.pop(network, fresh)
        while len(self._buckets) > REMEMBERED_COUNT:
            self._buckets.popitem(last=False)
        if not bucket.take(now_s):
            raise TooManyReturns(retry_after_s=60)

    def look_up(self, now_s: float) -> None:
        """Once it is signed: what all that ask share. Raises `TooManyReturns`."""
        if not self._all.take(now_s):
            raise TooManyReturns(retry_after_s=60)

    def once(self, nkey: str, nonce: str, now_s: float) -> None:
        """Raises `RenewalRepeated` for a nonce seen while it could still be fresh."""
        kept_s = 2 * STALE_AFTER.total_seconds() + 60
        while self._nonces and next(iter(self._nonces.values())) < now_s - kept_s:
            self._nonces.popitem(last=False)
        if len(self._nonces) >= REMEMBERED_COUNT:
            raise TooManyReturns(retry_after_s=60)
        if (nkey, nonce) in self._nonces:
            raise RenewalRepeated
        self._nonces[nkey, nonce] = now_s
