"""Governor: enforces expiry and used-up allowances alone, with or without a controller."""

import asyncio
import sqlite3

from xfleet_agent import allowance
from xfleet_agent.apply import Applier
from xfleet_agent.cuts import expiries_of, next_expiry_ms, plan_cuts
from xfleet_agent.database import Worker
from xfleet_agent.events import Events
from xfleet_agent.fleet_clock import FleetClock
from xfleet_agent.spool import Spool
from xfleet_agent.state import Entities, StateStore
from xfleet_contracts.allowance import Allowances
from xfleet_runtime.log import get_logger

CHECK_EVERY_S = 0.5
RETRY_S = 5.0
_log = get_logger(__name__)


class Governor:
    """Decides who is cut, writes it down, and lets the applier disconnect them."""

    def __init__(
        self, store: StateStore, spool: Spool, worker: Worker, clock: FleetClock, events: Events, applier: Applier
    ) -> None:
        self._store = store
        self._spool = spool
        self._worker = worker
        self._clock = clock
        self._events = events
        self._applier = applier
        self._wanted: Entities | None = None
        self._expiries: dict[int, int] = {}
        self._next_ms: int | None = None
        self._trusted = True
        self._dirty = True

    def wake(self) -> None:
        """Bytes moved, or a limit changed."""
        self._dirty = True

    async def on_allowances(self, told: Allowances) -> None:
        """New figures from the controller."""
        if await self._worker.run(allowance.accept, self._spool, told):
            self.wake()

    async def run(self) -> None:
        """Looks for ever whether somebody's time or allowance is over."""
        while True:
            if self._due():
                try:
                    await self.check()
                except sqlite3.Error as error:
                    self._dirty = True
                    _log.error("limits could not be enforced now", error=str(error))
                    await asyncio.sleep(RETRY_S)
            await asyncio.sleep(CHECK_EVERY_S)

    def _due(self) -> bool:
        if self._dirty or self._wanted is not self._store.wanted or self._trusted != self._clock.trusted:
            return True
        return self._next_ms is not None and self._next_ms <= self._clock.now_ms() and self._trusted

    async def check(self) -> None:
        """Adds and lifts cuts by what holds now."""
        self._dirty = False
        if self._wanted is not self._store.wanted:
            self._wanted = self._store.wanted
            self._expiries = expiries_of(self._wanted)
        exhausted = await self._worker.run(allowance.list_exhausted, self._spool)
        now_ms, self._trusted = self._clock.now_ms(), self._clock.trusted
        add, lift = plan_cuts(self._store.cuts, self._expiries, exhausted, now_ms=now_ms, clock_trusted=self._trusted)
        if add or lift:
            await self._worker.run(self._store.save_cuts, add, lift, now_ms=now_ms)
            for cut in add:
                self._events.tell("client_cut", client=cut.client, reason=cut.reason, mark=cut.mark)
            for client, reason in lift:
                self._events.tell("client_cut_lifted", client=client, reason=reason)
            self._applier.wake.set()
        self._next_ms = next_expiry_ms(self._store.cuts, self._expiries)
