"""The agents' calls about the ledger: what is committed, and single batches as they were sent."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from xfleet_contracts import codec
from xfleet_contracts.commands import Reply
from xfleet_contracts.errors import Refusal
from xfleet_contracts.traffic import BATCH_NOT_KEPT, BatchName, BatchRequest, EpochMark, LedgerAnswer, LedgerQuery
from xfleet_controller.db import Database
from xfleet_controller.traffic import store
from xfleet_controller.traffic.clones import BeatBook, CloneWatch, Doubles
from xfleet_controller.traffic.ingest import NoteEvent
from xfleet_controller.traffic.ledger import Cursor
from xfleet_controller.traffic.reading import MAX_SEQ, unpack
from xfleet_controller.traffic.receipts import Receipts
from xfleet_runtime.broker import BrokerOutage
from xfleet_runtime.clock import Clock

MARKS_COUNT = 100
"""Committed epochs in one answer that were not asked about: the newest."""
KNOWN_COUNT = 700
"""Epochs that one question can be about, the last ones named: its answer has to fit into a message."""
NAMES_COUNT = 1200
"""Batches named in one answer; beyond them a start is declared lost rather than counted twice."""
STARTS_COUNT = 100
NOTED_COUNT = 1000

CountPending = Callable[[str], Awaitable[int]]
"""Messages of a server that wait in the stream. Raises `BrokerOutage`."""


class LedgerNotReady(Refusal):
    """The ledger cannot say now what is committed."""

    code = "ledger_not_ready"
    status = 503
    message = "The ledger cannot be read now. Ask again."


class BatchNotKept(Refusal):
    """A batch that is not in the ledger, or whose body is no longer kept."""

    code = BATCH_NOT_KEPT
    status = 404
    message = "The ledger keeps no such batch."


class LedgerInbox:
    """Answers `rpc ledger` and `rpc ledger_batch`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        receipts: Receipts,
        presence: BeatBook,
        count_pending: CountPending,
        note_event: NoteEvent,
    ) -> None:
        self._database = database
        self._clock = clock
        self._receipts = receipts
        self._clones = CloneWatch(presence)
        self._count_pending = count_pending
        self._note_event = note_event
        self._reported: set[tuple[str, str, str]] = set()
        self._noted: asyncio.Queue[tuple[str, tuple[str, str]]] = asyncio.Queue(NOTED_COUNT)

    def note_double(self, sid: str, instances: tuple[str, str]) -> None:
        """Two processes beat as this server; it is reported once."""
        one, other = instances
        if {(sid, one, other), (sid, other, one)}.isdisjoint(self._reported) and not self._noted.full():
            self._noted.put_nowait((sid, instances))

    async def run(self) -> None:
        """Reports doubles that beats betrayed, for ever."""
        while True:
            sid, (one, other) = await self._noted.get()
            async with self._database.read() as session:
                server = (await store.find_servers(session, [sid])).get(sid)
            if server is not None:
                await self._report(sid, server.id, one, Doubles(living=(other,)))

    async def on_ledger(self, sid: str, server_id: int, payload: bytes) -> bytes:
        """The payload of the answer to `rpc ledger`. Raises `Refusal`."""
        answer = await self.answer(sid, server_id, codec.decode(payload, LedgerQuery))
        return codec.encode(Reply(ok=True, data=msgspec.Raw(codec.canonical(answer))))

    async def on_ledger_batch(self, _sid: str, server_id: int, payload: bytes) -> bytes:
        """The payload of the answer to `rpc ledger_batch`: the batch, byte for byte. Raises `Refusal`."""
        asked = codec.decode(payload, BatchRequest)
        if not 0 < asked.seq < 2**53 or "\0" in asked.epoch:
            raise BatchNotKept(epoch=asked.epoch, seq=asked.seq)
        async with self._database.read() as session:
            body = await store.find_body(session, server_id, asked.epoch, asked.seq)
        if body is None:
            raise BatchNotKept(epoch=asked.epoch, seq=asked.seq)
        return unpack(body)

    async def answer(self, sid: str, server_id: int, query: LedgerQuery) -> LedgerAnswer:
        """What the ledger says to this query. The stream is counted first: what left it by then is in the answer."""
        starts = [each for each in query.starts[:STARTS_COUNT] if "\0" not in each]
        known = {mark.epoch: min(mark.through, MAX_SEQ) for mark in query.known if "\0" not in mark.epoch}
        known.setdefault(query.epoch, 0)
        asked = set(list(known)[-KNOWN_COUNT:])
        try:
            pending_count = await self._count_pending(sid)
        except BrokerOutage as outage:
            raise LedgerNotReady(reason=str(outage)) from outage
        async with self._database.read() as session:
            told = await store.list_marks(session, server_id, asked, MARKS_COUNT)
            names = await store.list_names_of_starts(session, server_id, starts, known, NAMES_COUNT + 1)
        doubles = self._clones.look(sid, query.instance, starts, self._clock.monotonic_s())
        await self._report(sid, server_id, query.instance, doubles)
        nothing_of = sorted(asked - {epoch for epoch, _, _ in told})
        self._receipts.note(sid, {epoch: Cursor(floor, digest) for epoch, floor, digest in told if epoch in known})
        foreign, missing = _split(names)
        return LedgerAnswer(
            pending_count=max(pending_count, 1) if doubles.undecided else pending_count,
            committed=(
                *(EpochMark(epoch=epoch, through=floor, digest=digest) for epoch, floor, digest in told),
                *(EpochMark(epoch=epoch, through=0) for epoch in nothing_of),
            ),
            foreign=foreign,
            missing=missing,
            owned_elsewhere=doubles.owned_elsewhere,
        )

    async def _report(self, sid: str, server_id: int, asker: str, doubles: Doubles) -> None:
        fresh = [
            other for other in doubles.living if {(sid, asker, other), (sid, other, asker)}.isdisjoint(self._reported)
        ]
        if not fresh:
            return
        self._reported.update((sid, asker, other) for other in fresh)
        async with self._database.write() as session:
            text = "Two agents speak as this server: its state directory was copied. Enroll one of them anew."
            await store.set_server_error(session, server_id, text)
            details = {"instances": sorted([asker, *fresh]), "starts": list(doubles.owned_elsewhere)}
            self._note_event(session, "agent_cloned", self._clock.now(), server=sid, details=details)


def _split(names: list[tuple[str, int, str, bool]]) -> tuple[tuple[BatchName, ...], tuple[BatchName, ...]]:
    listed, beyond = names[:NAMES_COUNT], names[NAMES_COUNT:]
    foreign = tuple(BatchName(epoch=epoch, seq=seq, digest=digest) for epoch, seq, digest, kept in listed if kept)
    missing = tuple(BatchName(epoch=epoch, seq=seq, digest=digest) for epoch, seq, digest, kept in listed if not kept)
    return foreign, missing + tuple(BatchName(epoch=epoch, seq=seq, digest=digest) for epoch, seq, digest, _ in beyond)
