"""The ledger's way in: takes messages from the stream, commits them, and only then acknowledges.

Any number of controllers share one durable pull consumer. One fetch is one transaction. What the database cannot take
because it is away is given back with a delay; what it will not take because of its content is narrowed down to the one
message and set aside.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts import subjects
from xfleet_contracts.errors import MessageMalformed
from xfleet_controller.db import Database
from xfleet_controller.traffic import store
from xfleet_controller.traffic.ledger import (
    BatchKey,
    Commit,
    Cursor,
    Known,
    LedgerSettings,
    Rejected,
    ServerFact,
    plan_commit,
    refuse,
)
from xfleet_controller.traffic.metrics import LedgerMetrics
from xfleet_controller.traffic.reading import Reading, Unreadable, hollow, read
from xfleet_controller.traffic.receipts import Receipts
from xfleet_runtime.clock import Clock
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
MAX_REFS = 2_000_000
MAX_TOLD = 20_000


class Delivery(Protocol):
    """One message of the stream."""

    subject: str
    payload: bytes
    stored_at: datetime

    async def ack(self) -> None:
        """It is committed."""
        ...

    async def nak(self, delay_s: float) -> None:
        """Give it again later."""
        ...


class NoteEvent(Protocol):
    """Leaves an event in the outbox, within the transaction."""

    def __call__(
        self,
        session: AsyncSession,
        kind: str,
        now: datetime,
        *,
        server: str = "",
        subject: str = "",
        details: dict[str, Any] | None = None,
    ) -> None:
        """Notes it."""
        ...


class DatabaseAway(Exception):  # noqa: N818  an outage is named for what is missing
    """The database did not take a fetch for a reason that is not in its content."""


OnCommit = Callable[[Commit], Awaitable[None] | None]


class Ingest:
    """Commits fetches; remembers which inbounds and clients exist, because refs are never reused."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        receipts: Receipts,
        metrics: LedgerMetrics,
        note_event: NoteEvent,
        settings: LedgerSettings | None = None,
    ) -> None:
        self.settings = settings or LedgerSettings()
        self.on_commit: list[OnCommit] = []
        self._database = database
        self._clock = clock
        self._receipts = receipts
        self.metrics = metrics
        self._note_event = note_event
        self._inbound_servers: dict[int, int] = {}
        self._clients: set[int] = set()
        self._told: set[tuple[str, str]] = set()

    async def take(self, deliveries: Sequence[Delivery]) -> None:
        """Commits and acknowledges these messages. Raises `DatabaseAway`, having acknowledged none of those left."""
        if not deliveries:
            return
        try:
            commit = await self._commit(deliveries)
        except (DataError, IntegrityError) as error:
            await self._narrow_down(deliveries, error)
        except (DBAPIError, PoolTimeout, OSError) as error:
            raise DatabaseAway(str(getattr(error, "orig", None) or error)) from error
        except Exception as error:  # noqa: BLE001  an edge: what one message breaks must not hold up the others
            await self._narrow_down(deliveries, error)
        else:
            await self._after(commit, deliveries)

    async def _commit(self, deliveries: Sequence[Delivery]) -> Commit:
        return await self._commit_readings(*await asyncio.to_thread(_read_all, deliveries))

    async def _commit_readings(self, readings: Sequence[Reading], refused: Sequence[Rejected]) -> Commit:
        now = self._clock.now()
        started = self._clock.monotonic_s()
        async with self._database.write() as session:
            known = await self._look_up(session, readings, now)
            commit = await asyncio.to_thread(plan_commit, readings, known, self.settings, now)
            commit.rejected.extend(refused)
            new = await store.write_commit(session, commit, now)
            for fork in commit.forks:
                if fork.refused_digest in new:
                    details = {"epoch": fork.epoch, "seq": fork.seq}
                    self._note_event(session, "batch_forked", now, server=fork.sid, details=details)
        self.metrics.commit_seconds.observe(self._clock.monotonic_s() - started)
        for key, cursor in known.cursors.items():
            commit.cursors.setdefault(key, cursor)
        return commit

    async def _look_up(self, session: AsyncSession, readings: Sequence[Reading], now: datetime) -> Known:
        servers = await store.find_servers(session, {each.sid for each in readings})
        await self._learn_refs(session, readings, servers)
        keys = {(servers[each.sid].id, *each.key) for each in readings if each.sid in servers}
        if not keys:
            return Known(servers, self._inbound_servers, self._clients, {}, {}, {}, {})
        cursors = await store.lock_cursors(session, {key[:2] for key in keys}, now)
        return Known(
            servers,
            self._inbound_servers,
            self._clients,
            cursors,
            await store.find_digests(session, keys),
            await store.find_above_floor(session, cursors),
            await store.find_ends(session, _predecessors(keys)),
        )

    async def _learn_refs(
        self, session: AsyncSession, readings: Sequence[Reading], servers: dict[str, ServerFact]
    ) -> None:
        if len(self._clients) > MAX_REFS:
            self._clients.clear()
        mine = [reading for reading in readings if reading.sid in servers]
        missing_inbounds = set[int]().union(*(reading.inbounds for reading in mine)) - self._inbound_servers.keys()
        if missing_inbounds:
            self._inbound_servers.update(await store.find_inbound_servers(session, missing_inbounds))
        news = [reading.clients for reading in mine if not self._clients.issuperset(reading.clients)]
        if news:
            self._clients.update(await store.find_clients(session, set[int]().union(*news) - self._clients))

    async def _narrow_down(self, deliveries: Sequence[Delivery], error: Exception) -> None:
        if len(deliveries) > 1:
            for delivery in deliveries:
                await self.take([delivery])
            return
        reason = str(getattr(error, "orig", None) or error)[:500]
        _log.error("a batch could not be committed", subject=deliveries[0].subject, reason=reason, exc_info=error)
        why = Unreadable("not_committable", reason)
        readings, rejected = _without_contents(deliveries[0], why)
        try:
            commit = await self._commit_readings(readings, rejected)
        except Exception:  # noqa: BLE001  the same edge: it is set aside without its number
            _log.exception("a batch could not even take its number", subject=deliveries[0].subject)
            commit = Commit(rejected=rejected + [refuse(each.sid, each.payload, why) for each in readings])
            async with self._database.write() as session:
                await store.write_rejected(session, commit.rejected, self._clock.now())
        await self._after(commit, deliveries)

    async def _after(self, commit: Commit, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            await delivery.ack()
        for key, sid in commit.seen.items():
            self._receipts.note(sid, {key[1]: commit.cursors.get(key, Cursor(0, ""))})
        for fork in commit.forks:
            self._receipts.note_fork(fork)
        self._count(commit, deliveries)
        for callback in self.on_commit:
            waiting = callback(commit)
            if waiting is not None:
                await waiting

    def _count(self, commit: Commit, deliveries: Sequence[Delivery]) -> None:
        self.metrics.batches.labels("accepted").inc(len(commit.accepted))
        self.metrics.batches.labels("duplicate").inc(commit.duplicates_count)
        self.metrics.batches.labels("fork").inc(len(commit.forks))
        self.metrics.rows.inc(sum(len(each.clients) + len(each.tags) for each in commit.accepted))
        for each in commit.rejected:
            self.metrics.rejects.labels(each.reason).inc()
            if (each.sid, each.reason) not in self._told and len(self._told) < MAX_TOLD:
                self._told.add((each.sid, each.reason))
                _log.warning("set aside by the ledger", server=each.sid, reason=each.reason, detail=each.detail)
        oldest = min(each.stored_at for each in deliveries)
        self.metrics.lag_seconds.set(max(0.0, (self._clock.now() - oldest).total_seconds()))


def _read_all(deliveries: Sequence[Delivery]) -> tuple[list[Reading], list[Rejected]]:
    readings: list[Reading] = []
    refused: list[Rejected] = []
    for delivery in deliveries:
        sid = ""
        try:
            sid = subjects.sid_of(delivery.subject)
            readings.append(read(sid, delivery.payload, delivery.stored_at))
        except MessageMalformed as error:
            refused.append(refuse(sid, delivery.payload, Unreadable("malformed", error.text)))
        except Unreadable as error:
            numbered, numberless = _without_contents(delivery, error)
            readings += numbered
            refused += numberless
    return readings, refused


def _without_contents(delivery: Delivery, why: Unreadable) -> tuple[list[Reading], list[Rejected]]:
    """A message of which nothing can count: under its number if it tells one, else only set aside."""
    sid = subjects.sid_of(delivery.subject)
    reading = hollow(sid, delivery.payload, delivery.stored_at, why)
    return ([], [refuse(sid, delivery.payload, why)]) if reading is None else ([reading], [])


def _predecessors(keys: set[BatchKey]) -> set[BatchKey]:
    return {(server_id, epoch, seq - 1) for server_id, epoch, seq in keys if seq > 1} - keys
