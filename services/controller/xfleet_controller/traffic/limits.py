"""Limits: a client that used up its quota is disconnected on every server, once per period, decided on the ledger."""

import asyncio
from collections.abc import Awaitable, Collection
from datetime import datetime
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.db import Database
from xfleet_controller.traffic import limits_store
from xfleet_controller.traffic.ledger import Commit
from xfleet_controller.traffic.limits_store import QUOTA, Usage
from xfleet_runtime.clock import Clock
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
COALESCE_S = 0.5
SWEEP_EVERY_S = 60.0
MANY_REFS = 5000
"""More touched clients than this are looked through as a whole."""


class ChangeAccess(Protocol):
    """Cuts a client off, or lets it in again, on every server it is on, and says so, within the transaction."""

    def __call__(self, session: AsyncSession, client_ref: int, reason: str) -> Awaitable[object]:
        """Changes the desired state of its servers."""
        ...


class _Changed(Exception):  # noqa: N818  rolls the transaction back
    """What was about to be decided is no longer so."""


class Limits:
    """Watches the clients whose bytes were just committed, and all of them every minute."""

    def __init__(self, database: Database, clock: Clock, cut: ChangeAccess, lift: ChangeAccess) -> None:
        self._database = database
        self._clock = clock
        self._cut = cut
        self._lift = lift
        self._touched: set[int] = set()
        self._woken = asyncio.Event()

    def note(self, commit: Commit) -> None:
        """These clients used something."""
        self._touched.update(commit.sums.client_up)
        if self._touched:
            self._woken.set()

    async def run(self) -> None:
        """Looks after commits, and through everything every minute, for ever."""
        swept_s = self._clock.monotonic_s() - SWEEP_EVERY_S
        while True:
            overdue_s = self._clock.monotonic_s() - swept_s - SWEEP_EVERY_S
            if overdue_s >= 0:
                await self.sweep()
                swept_s = self._clock.monotonic_s()
            try:
                async with asyncio.timeout(max(0.0, -overdue_s)):
                    await self._woken.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(COALESCE_S)
            await self.step()

    async def step(self) -> list[int]:
        """Cuts those of the clients touched since the last step that used up their quota; returns their refs."""
        self._woken.clear()
        touched, self._touched = self._touched, set()
        return await self._cut_depleted(None if len(touched) > MANY_REFS else touched)

    async def sweep(self) -> list[int]:
        """Cuts everybody who used up a quota, and lets in again who has some; returns the refs that were cut."""
        async with self._database.read() as session:
            refilled = await limits_store.list_refilled(session)
        for usage in refilled:
            await self._let_in(usage.ref)
        return await self._cut_depleted(None)

    async def _cut_depleted(self, refs: Collection[int] | None) -> list[int]:
        async with self._database.read() as session:
            depleted = await limits_store.list_depleted(session, refs)
        return [usage.ref for usage in depleted if await self._cut_off(usage)]

    async def _cut_off(self, usage: Usage) -> bool:
        now = self._clock.now()
        try:
            async with self._database.write() as session:
                before = await limits_store.find_usage(session, usage.ref)
                if before is None or not before.is_over or before.cut_reason is not None:
                    return False
                await self._cut(session, usage.ref, QUOTA)
                after = await limits_store.find_usage(session, usage.ref)
                if after is None or not after.is_over:
                    raise _Changed
                await limits_store.note_act(session, after, now)
        except _Changed:
            return False
        _log.info("a client used up its quota", client=usage.ref)
        return True

    async def _let_in(self, ref: int) -> None:
        async with self._database.write() as session:
            usage = await limits_store.find_usage(session, ref)
            if usage is not None and usage.cut_reason == QUOTA and not usage.is_over:
                await self._lift(session, ref, QUOTA)
                _log.info("a client has quota again", client=ref)


async def reset_usage(session: AsyncSession, refs: Collection[int], lift: ChangeAccess, now: datetime) -> None:
    """Starts a new period for these clients and lets in those that their quota had cut off."""
    await limits_store.begin_period(session, refs, now)
    for ref in sorted(refs):
        usage = await limits_store.find_usage(session, ref)
        if usage is not None and usage.cut_reason == QUOTA:
            await lift(session, ref, QUOTA)
