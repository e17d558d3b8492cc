"""Wrong passwords make the next try wait, per account and address; a right password from elsewhere still gets in.

The account's long delay is kept per address (`account:<name>@<address>`), so that somebody guessing from one place
never locks the owner out from another; guesses from many places are slowed by the account's own, short, delay.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from ipaddress import IPv6Address, IPv6Network, ip_address

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.errors import Refusal
from xfleet_controller.auth.models import LoginThrottle
from xfleet_controller.sql import insert_into

FREE_TRIES = 5
LONGEST_S = 900
LONGEST_ACCOUNT_S = 5
FORGET_AFTER = timedelta(hours=24)


IN_FLIGHT_PER_ADDRESS, IN_FLIGHT_PER_ACCOUNT, IN_FLIGHT = 2, 8, 32
"""Passwords that may be looked at or wait at the same moment."""


class TooManyTries(Refusal):
    """Wrong passwords came too fast."""

    code = "too_many_tries"
    status = 429
    message = "Too many wrong tries. Wait a little and try again."


def delay_s(failures_count: int, *, free: int = FREE_TRIES, longest_s: int = LONGEST_S) -> int:
    """Seconds to wait after so many failures in a row: none at first, then doubling."""
    return 0 if failures_count < free else min(longest_s, 2 ** min(failures_count - free, 20))


def network_of(address: str) -> str:
    """Whom an address stands for: of IPv6 the /64, which one customer has to himself."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    mapped = parsed.ipv4_mapped
    return str(mapped) if mapped else str(IPv6Network((int(parsed) >> 64 << 64, 64)))


class Tries:
    """Passwords being looked at just now.

    A burst of guesses that all begin before the first has failed would slip past delays that only grow by failures.
    """

    def __init__(self) -> None:
        self._now: Counter[str] = Counter()

    @contextmanager
    def one(self, account: str, address: str, *, known: bool) -> Iterator[None]:
        """Holds a place; `known` addresses of the account need only one of their own. Raises `TooManyTries`."""
        own, places = f"address:{network_of(address)}", {f"account:{account}": IN_FLIGHT_PER_ACCOUNT, "": IN_FLIGHT}
        limits = {own: IN_FLIGHT_PER_ADDRESS} | ({} if known else places)
        if any(self._now[key] >= limit for key, limit in limits.items()):
            raise TooManyTries(retry_after_s=1)
        self._now.update(limits.keys())
        try:
            yield
        finally:
            self._now.subtract(limits.keys())
            self._now = +self._now


def keys_of(account: str, address: str, account_s: int = LONGEST_ACCOUNT_S) -> dict[str, int]:
    """Throttle keys of a try, each with its longest delay in seconds."""
    address = network_of(address)
    return {
        f"account:{account[:60]}": account_s,
        f"account:{account[:60]}@{address[:60]}": LONGEST_S,
        f"address:{address[:60]}": LONGEST_S,
    }


async def check(session: AsyncSession, account: str, address: str, now: datetime, *, known: bool = False) -> None:
    """Raises `TooManyTries` while one of the keys is blocked.

    The account's own delay does not hold where the account is `known` to sign in from: others, guessing from
    everywhere, could keep its owner out for ever.
    """
    keys = keys_of(account, address)
    if known:
        del keys[f"account:{account[:60]}"]
    rows = await session.scalars(select(LoginThrottle).where(LoginThrottle.key.in_(keys)))
    until = max((row.blocked_until_at for row in rows if row.blocked_until_at is not None), default=None)
    if until is not None and until > now:
        raise TooManyTries(retry_after_s=max(1, int((until - now).total_seconds())))


async def note_failure(
    session: AsyncSession, account: str, address: str, now: datetime, *, account_s: int = LONGEST_ACCOUNT_S
) -> None:
    """Counts a wrong password and lengthens the delays; that of the account itself up to `account_s`."""
    for key, longest_s in sorted(keys_of(account, address, account_s).items()):
        await session.execute(
            insert_into(session, LoginThrottle)
            .values(key=key, failures_count=0, updated_at=now)
            .on_conflict_do_nothing()
        )
        row = await session.get_one(LoginThrottle, key, with_for_update=True, populate_existing=True)
        row.failures_count = 1 if now - row.updated_at > FORGET_AFTER else row.failures_count + 1
        free = FREE_TRIES * 4 if key.startswith("address:") else FREE_TRIES
        wait_s = delay_s(row.failures_count, free=free, longest_s=longest_s)
        row.blocked_until_at = now + timedelta(seconds=wait_s) if wait_s else None
        row.updated_at = now


async def forget(session: AsyncSession, account: str, address: str) -> None:
    """After a right password: this account starts over, from this address and in general."""
    keys = [key for key in keys_of(account, address) if key.startswith("account:")]
    await session.execute(delete(LoginThrottle).where(LoginThrottle.key.in_(keys)))


async def forget_old(session: AsyncSession, now: datetime) -> None:
    """Drops what is a day old."""
    await session.execute(delete(LoginThrottle).where(LoginThrottle.updated_at < now - FORGET_AFTER))
