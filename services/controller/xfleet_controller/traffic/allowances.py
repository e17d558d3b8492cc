"""Allowances: tells every server of a client that nears its quota how much is left, so that it can act alone.

The figure and the point of the server's ledger it was reckoned at are read in one snapshot. What the agent sealed after
that point it subtracts by itself; what is committed above a hole was subtracted here already and is given back.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.allowance import ALLOWANCE, Allowance, Allowances
from xfleet_controller.db import Database
from xfleet_controller.traffic import limits_store
from xfleet_controller.traffic.ledger import Commit, counted
from xfleet_controller.traffic.limits_store import Told, Usage
from xfleet_controller.traffic.reading import parse, unpack
from xfleet_controller.traffic.receipts import Sender
from xfleet_runtime.broker import BrokerOutage
from xfleet_runtime.clock import Clock
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
NEAR_SHARE = 0.2
NEAR_BYTES = 256 * 1024**2
LIFT_FACTOR = 1.25
MATERIAL_SHARE = 0.1
MATERIAL_BYTES = 1024**2
ITEMS_PER_MESSAGE = 1000
COALESCE_S = 1.0
SWEEP_EVERY_S = 60.0
REPEAT_FOR = timedelta(seconds=150)
MANY_REFS = 5000


class Facts(msgspec.Struct, frozen=True):
    """One snapshot of what allowances are reckoned from."""

    usages: Mapping[int, Usage]
    places: Mapping[int, list[tuple[int, str]]]
    """Server id and slug by client."""
    told: Mapping[tuple[int, int], Told]
    """By server and client."""
    points: Mapping[int, tuple[str, int]]
    """Epoch and floor by server."""
    above: Mapping[tuple[int, int], int]
    """Bytes by server and client committed above the server's floor."""


class Decided(msgspec.Struct, frozen=True):
    """One allowance to tell."""

    server_id: int
    sid: str
    item: Allowance


def plan_allowances(facts: Facts, now_ms: int, *, repeat: bool = False) -> list[Decided]:
    """What has to be told to whom; with `repeat`, also what was told already. Pure."""
    decided: list[Decided] = []
    for ref, usage in sorted(facts.usages.items()):
        for server_id, sid in facts.places.get(ref, []):
            told = facts.told.get((server_id, ref))
            left = left_of(usage, told)
            if left is not None:
                left += facts.above.get((server_id, ref), 0)
            if not repeat and not is_news(left, told):
                continue
            if told is None and left is None:
                continue
            serial = max(now_ms, told.serial + 1 if told else 0)
            decided.append(Decided(server_id, sid, Allowance(client=ref, allowance_bytes=left, serial=serial)))
    return decided


def left_of(usage: Usage, told: Told | None) -> int | None:
    """Bytes left when that has to be known on servers; None when the quota is far or there is none."""
    if not usage.total_bytes:
        return None
    left = max(0, usage.total_bytes - usage.used_bytes)
    near = max(usage.total_bytes * NEAR_SHARE, NEAR_BYTES)
    if told is not None and told.allowance_bytes is not None:
        near *= LIFT_FACTOR
    return left if left < near else None


def is_news(left: int | None, told: Told | None) -> bool:
    """Whether this differs materially from what was told last."""
    before = told.allowance_bytes if told is not None else None
    if left is None or before is None:
        return left != before
    return abs(left - before) >= max(MATERIAL_BYTES, left * MATERIAL_SHARE) or (left == 0) != (before == 0)


class AllowanceDesk:
    """Decides and sends allowances."""

    def __init__(self, database: Database, clock: Clock, sender: Sender) -> None:
        self._database = database
        self._clock = clock
        self._sender = sender
        self._touched: set[int] = set()
        self._returned: set[str] = set()
        self._woken = asyncio.Event()

    def note(self, commit: Commit) -> None:
        """These clients used something."""
        self._touched.update(commit.sums.client_up)
        self._woken.set()

    def note_change(self, _topics: frozenset[str] = frozenset()) -> None:
        """Clients or quotas may have changed: whatever was told is looked at again."""
        self._woken.set()

    def note_server(self, sid: str) -> None:
        """A new agent process speaks: it is told everything that concerns it."""
        self._returned.add(sid)
        self._woken.set()

    async def run(self) -> None:
        """Tells after commits and changes, and sweeps every minute, for ever."""
        swept_s = self._clock.monotonic_s()
        while True:
            left_s = SWEEP_EVERY_S - (self._clock.monotonic_s() - swept_s)
            try:
                async with asyncio.timeout(max(0.0, left_s)):
                    await self._woken.wait()
            except TimeoutError:
                swept_s = self._clock.monotonic_s()
                await self.sweep()
                continue
            await asyncio.sleep(COALESCE_S)
            await self.step()

    async def step(self) -> None:
        """Tells what is news about the clients touched since the last step, and what returned servers need."""
        self._woken.clear()
        touched, self._touched = self._touched, set()
        returned, self._returned = self._returned, set()
        for sid in sorted(returned):
            await self.tell_server(sid)
        await self._tell(None if len(touched) > MANY_REFS else touched)
        if len(touched) <= MANY_REFS:
            await self._tell_known()

    async def sweep(self) -> None:
        """Looks at every quota, and says again what was decided lately, for a message may have been lost."""
        await self._tell(None)
        async with self._database.read() as session:
            recent = await limits_store.list_recently_told(session, self._clock.now() - REPEAT_FOR)
        if recent:
            await self._tell(recent, repeat=True)

    async def tell_server(self, sid: str) -> None:
        """Everything a server has to know about its clients' quotas, again."""
        async with self._database.read() as session:
            refs = await limits_store.list_refs_of_server(session, sid)
        if refs:
            await self._tell(refs, repeat=True, only=sid)

    async def _tell_known(self) -> None:
        async with self._database.read() as session:
            refs = await limits_store.list_refs_told(session)
        if refs:
            await self._tell(refs)

    async def _tell(self, refs: Collection[int] | None, *, repeat: bool = False, only: str = "") -> None:
        if refs is not None and not refs:
            return
        async with self._snapshot() as session:
            facts = await _gather(session, refs, every=repeat)
        decided = plan_allowances(facts, self._clock.now_ms(), repeat=repeat)
        if only:
            decided = [each for each in decided if each.sid == only]
        if not decided:
            return
        rows = [(each.server_id, each.item.client, each.item.serial, each.item.allowance_bytes) for each in decided]
        async with self._database.write() as session:
            await limits_store.write_told(session, rows, self._clock.now(), keep_moment=repeat)
        await self._send(decided, facts.points)

    async def _send(self, decided: list[Decided], points: Mapping[int, tuple[str, int]]) -> None:
        by_server: dict[tuple[int, str], list[Allowance]] = {}
        for each in decided:
            by_server.setdefault((each.server_id, each.sid), []).append(each.item)
        for (server_id, sid), items in by_server.items():
            epoch, floor = points.get(server_id, ("", 0))
            for start in range(0, len(items), ITEMS_PER_MESSAGE):
                body = Allowances(
                    as_of_epoch=epoch, as_of_floor=floor, items=tuple(items[start : start + ITEMS_PER_MESSAGE])
                )
                try:
                    await self._sender.send(sid, ALLOWANCE, body)
                except BrokerOutage as outage:
                    _log.info("allowances were not sent; they will be repeated", sid=sid, reason=str(outage))

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[AsyncSession]:
        async with self._database.read() as session:
            if not self._database.is_sqlite:
                await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield session


async def _gather(session: AsyncSession, refs: Collection[int] | None, *, every: bool) -> Facts:
    usages = await limits_store.list_usages(session, refs, near_share=NEAR_SHARE, near_bytes=NEAR_BYTES, every=every)
    found = sorted(usage.ref for usage in usages)
    places = await limits_store.list_places(session, found, every=every)
    server_ids = {server_id for there in places.values() for server_id, _ in there}
    points = await limits_store.find_points(session, server_ids)
    above: dict[tuple[int, int], int] = {}
    for server_id, body, skipped in await limits_store.list_bodies_above(session, points):
        if body is not None:
            clients, _ = counted(parse(unpack(body)), skipped)
            for row in clients:
                key = (server_id, row.client)
                above[key] = above.get(key, 0) + row.up_bytes + row.down_bytes
    told = await limits_store.list_told(session, found)
    return Facts({usage.ref: usage for usage in usages}, places, told, points, above)
