"""Courier: brings sealed batches to the ledger, and asks it whenever there is doubt about what arrived.

Nothing is sealed before the ledger answered, with nothing of ours left in the broker, since this process started and
since the link came up: only then is it known what a former or copied self already brought there.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable

from xfleet_agent import outbox, reconcile
from xfleet_agent.calls import Calls
from xfleet_agent.database import Worker
from xfleet_agent.events import Events
from xfleet_agent.fleet_clock import FleetClock
from xfleet_agent.outbox import SealedBatch
from xfleet_agent.processes import RunningXray
from xfleet_agent.reconcile import DISPUTE_S, Findings
from xfleet_agent.spool import Spool
from xfleet_contracts import codec, streams, subjects
from xfleet_contracts.errors import Refusal, RemoteRefusal
from xfleet_contracts.receipt import Fork, Receipt
from xfleet_contracts.traffic import BATCH_NOT_KEPT, Batch, BatchName, LedgerAnswer
from xfleet_runtime.backoff import Backoff
from xfleet_runtime.broker import BrokerLink, BrokerOutage, PublishNotStored
from xfleet_runtime.log import get_logger

RECEIPT_DUE_S = 15.0
LONGEST_WAIT_S = 1800.0
PENDING_RETRY_S = 1.0
IDLE_S = 1.0
STARTS_AT_ONCE = 50
"""Xray starts asked about in one question; rows of others wait for the next."""
_log = get_logger(__name__)


class Courier:
    """One loop that publishes and asks, never both at once; receipts come in from the side."""

    def __init__(
        self,
        *,
        sid: str,
        instance: str,
        spool: Spool,
        worker: Worker,
        link: BrokerLink,
        calls: Calls,
        clock: FleetClock,
        events: Events,
        read_meter: Callable[[], Awaitable[None]],
        xrays: Callable[[], list[RunningXray]],
    ) -> None:
        self._sid = sid
        self._instance = instance
        self._spool = spool
        self._worker = worker
        self._link = link
        self._calls = calls
        self._clock = clock
        self._events = events
        self._read_meter = read_meter
        self._xrays = xrays
        self._wake = asyncio.Event()
        self._settled = False
        self._not_before_s: dict[tuple[str, int], float] = {}
        self._publish_backoff = Backoff(first_s=1.0, most_s=30.0)
        self._publish_after_s = 0.0
        self._ask_again_s = 0.0
        self._doubts_count = 0
        self._disputed_since_s: dict[str, float] = {}
        self._unasked: frozenset[str] = frozenset()
        self._weigh_again_s = 0.0

    @property
    def settled(self) -> bool:
        """Whether the ledger has told what it has, since this link came up."""
        return self._settled

    def wake(self) -> None:
        """Something may be ready to go."""
        self._wake.set()

    async def on_connected(self) -> None:
        """The link came up after a gap: whatever was in flight is in doubt."""
        self._settled = False
        self._doubts_count = 0
        self._publish_after_s = 0.0
        self.wake()

    # Receipts and forks, from the desk

    async def on_receipt(self, receipt: Receipt) -> None:
        """The controller's word that batches are in the ledger."""
        moved = await self._worker.run(outbox.accept_receipt, self._spool, receipt, now_ms=self._clock.now_ms())
        if moved:
            self._doubts_count = 0
            self.wake()

    async def on_fork(self, fork: Fork) -> None:
        """A number of ours was taken by another body: its rows are sealed again under a new epoch."""
        if not await self._worker.run(outbox.accept_fork, self._spool, fork):
            return
        if fork.epoch == self._spool.epoch:
            await self._part(batch=f"{fork.epoch}:{fork.seq}")
        self.wake()

    # The loop

    async def run(self) -> None:
        """Works for ever; a lost link or a full disk only delays it."""
        while True:
            try:
                await self._round()
            except BrokerOutage as outage:
                _log.debug("the ledger cannot be reached", reason=str(outage))
                await asyncio.sleep(PENDING_RETRY_S)
            except Refusal as refusal:
                _log.warning("the controller refused a call", code=refusal.body().code, reason=refusal.text)
                await asyncio.sleep(PENDING_RETRY_S)
            except sqlite3.Error as error:
                _log.error("the spool cannot be used", error=str(error))
                await asyncio.sleep(PENDING_RETRY_S)
            await self._idle()

    async def _idle(self) -> None:
        try:
            async with asyncio.timeout(IDLE_S):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _round(self) -> None:
        if not self._link.connected:
            return
        if not self._settled and not await self._settle():
            return
        await self.seal()
        await self._publish_all()
        if await self._in_doubt():
            await self._settle()

    async def seal(self) -> None:
        """Seals what is open, as far as there is room."""
        await self._worker.run(outbox.promote_resends, self._spool)
        held = self._unasked.union(self._disputed_since_s)
        await self._worker.run(self._spool.seal, now_ms=self._clock.now_ms(), instance=self._instance, held=held)

    async def _publish_all(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._publish_after_s:
            return
        for batch in await self._worker.run(outbox.list_unpublished, self._spool):
            if batch.tries and loop.time() < self._not_before_s.get((batch.epoch, batch.seq), 0.0):
                continue
            try:
                await self._publish(batch)
            except PublishNotStored as refused:
                self._publish_after_s = loop.time() + self._publish_backoff.next_s()
                _log.warning("the stream does not take traffic now", reason=str(refused))
                return
            except BrokerOutage:
                self._publish_after_s = loop.time() + self._publish_backoff.next_s()
                raise
        self._publish_backoff.reset()

    async def _publish(self, batch: SealedBatch) -> None:
        await self._link.publish_stored(
            subjects.traffic(self._sid), batch.payload, message_id=batch.message_id, stream=streams.TRAFFIC.name
        )
        await self._worker.run(outbox.mark_published, self._spool, batch)
        loop = asyncio.get_running_loop()
        wait_s = min(2.0 ** min(batch.tries, 16), LONGEST_WAIT_S)
        self._not_before_s[batch.epoch, batch.seq] = loop.time() + wait_s
        if len(self._not_before_s) > 1000:  # noqa: PLR2004  more than can ever wait
            self._not_before_s.clear()
        if self._ask_again_s <= loop.time():
            self._ask_again_s = loop.time() + RECEIPT_DUE_S

    async def _in_doubt(self) -> bool:
        """Whether a receipt is overdue; asks less and less often while the controller is silent."""
        loop = asyncio.get_running_loop()
        if (self._disputed_since_s or self._unasked) and loop.time() >= self._weigh_again_s:
            self._weigh_again_s = loop.time() + PENDING_RETRY_S
            return True
        oldest = await self._worker.run(outbox.oldest_unreceipted, self._spool)
        if oldest is None or loop.time() < self._ask_again_s:
            return False
        if self._clock.now_ms() - oldest[0] < RECEIPT_DUE_S * 1000:
            return False
        self._doubts_count += 1
        self._ask_again_s = loop.time() + min(RECEIPT_DUE_S * 2.0 ** min(self._doubts_count, 10), LONGEST_WAIT_S)
        return True

    # Asking the ledger

    async def _settle(self) -> bool:
        """Asks until the answer is final, then acts on it; True when sealing may go on."""
        await self._read_meter()
        starts = await self._worker.run(self._spool.open_starts)
        asked, self._unasked = starts[:STARTS_AT_ONCE], frozenset(starts[STARTS_AT_ONCE:])
        query = await self._worker.run(reconcile.question, self._spool, instance=self._instance, starts=asked)
        answer = await self._calls.ledger(query)
        if answer.pending_count:
            self._wake_later()
            return False
        findings = await self._worker.run(reconcile.digest_answer, self._spool, answer, now_ms=self._clock.now_ms())
        if findings.forked:
            await self._part(epoch=query.epoch)
            return False
        await self._act_on(findings)
        if findings.missing and not await self._resolve_missing(query.starts):
            return False
        await self._weigh_disputes(answer)
        self._settled = True
        return True

    def _wake_later(self) -> None:
        asyncio.get_running_loop().call_later(PENDING_RETRY_S, self._wake.set)

    async def _act_on(self, findings: Findings) -> None:
        now_ms = self._clock.now_ms()
        for name in findings.doubtful:
            await self._worker.run(reconcile.doubted, self._spool, name, await self._ledger_digest(name), now_ms=now_ms)
        if findings.resent_count or findings.lost_count:
            self._events.tell("ledger_rolled_back", resent=findings.resent_count, lost=findings.lost_count)
        if findings.subtract:
            self._events.tell("state_rolled_back", batches=len(findings.subtract))
        for name in findings.subtract:
            batch = codec.decode(await self._calls.ledger_batch(name), Batch)
            await self._worker.run(reconcile.subtract, self._spool, batch)

    async def _ledger_digest(self, name: BatchName) -> str | None:
        try:
            return codec.sha256_hex(await self._calls.ledger_batch(name))
        except RemoteRefusal as refusal:
            if refusal.remote_code != BATCH_NOT_KEPT:
                raise
            return None

    async def _resolve_missing(self, starts: tuple[str, ...]) -> bool:
        """Drops the open rows of each start of which the ledger has counted something it no longer keeps."""
        for start_id in starts:
            query = await self._worker.run(reconcile.question, self._spool, instance=self._instance, starts=(start_id,))
            answer = await self._calls.ledger(query)
            if answer.pending_count:
                self._wake_later()
                return False
            findings = await self._worker.run(reconcile.digest_answer, self._spool, answer, now_ms=self._clock.now_ms())
            if findings.missing:
                dropped = await self._worker.run(
                    reconcile.drop_start, self._spool, start_id, now_ms=self._clock.now_ms(), reason="archive_lost"
                )
                await self._worker.run(reconcile.settle_missing, self._spool, findings.missing)
                self._events.tell("open_rows_dropped", start=start_id, rows=dropped, reason="archive_lost")
        return True

    async def _weigh_disputes(self, answer: LedgerAnswer) -> None:
        """Holds back rows of starts that another live instance drives; drops them when that stays so."""
        now_s = asyncio.get_running_loop().time()
        ours = {self._spool.start_of(running.start_id) for running in self._xrays()}
        named = set(answer.owned_elsewhere) - ours
        self._disputed_since_s = {each: self._disputed_since_s.get(each, now_s) for each in named}
        for start_id, since_s in list(self._disputed_since_s.items()):
            if now_s - since_s < DISPUTE_S:
                self._weigh_again_s = now_s + DISPUTE_S / 4
                continue
            dropped = await self._worker.run(
                reconcile.drop_start, self._spool, start_id, now_ms=self._clock.now_ms(), reason=None
            )
            self._events.tell("cloned", start=start_id, rows=dropped)
            del self._disputed_since_s[start_id]

    async def _part(self, **details: str) -> None:
        """Our double seals under our epoch: from now on we count under names of our own."""
        process_ids = tuple(running.start_id for running in self._xrays())
        await self._worker.run(reconcile.fork, self._spool, process_ids)
        self._settled = False
        self._events.tell("agent_forked", **details)
        self.wake()

    async def drain(self, *, timeout_s: float) -> None:
        """At an ordered stop: seals, publishes and waits a little for receipts."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        try:
            while loop.time() < deadline and self._link.connected:
                await self._round()
                if self._settled and await self._empty():
                    return
                await asyncio.sleep(0.05)
        except (BrokerOutage, Refusal, sqlite3.Error) as error:
            _log.info("not everything could be delivered before the stop", reason=str(error))

    async def _empty(self) -> bool:
        figures = await self._worker.run(self._spool.figures)
        return not figures.open_rows_count and not figures.sealed_batches_count
