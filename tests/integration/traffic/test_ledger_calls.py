from dataclasses import dataclass, field

import pytest
from sqlalchemy import select, update

from harness.ledger import INBOUND, NOW, ONE, LedgerBench, batch, epoch_of
from xfleet_contracts import codec
from xfleet_contracts.commands import Reply
from xfleet_contracts.heartbeat import Heartbeat, HostFigures, XrayState
from xfleet_contracts.receipt import RECEIPT
from xfleet_contracts.traffic import BatchRequest, EpochMark, LedgerAnswer, LedgerQuery
from xfleet_controller.fleet.models import OutboxRow
from xfleet_controller.outbox import note_event
from xfleet_controller.servers.models import Server
from xfleet_controller.servers.presence import Presence
from xfleet_controller.traffic.inbox import BatchNotKept, LedgerInbox, LedgerNotReady
from xfleet_controller.traffic.models import LedgerBody
from xfleet_runtime.broker import Disconnected

E1, E2, E3 = epoch_of(1), epoch_of(2), epoch_of(3)


@dataclass
class Desk:
    """The inbox with a stream that a test fills and beats that it sends."""

    bench: LedgerBench
    pending_count: int = 0
    away: bool = False
    seqs: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.presence = Presence(self.bench.clock)
        self.inbox = LedgerInbox(
            self.bench.database, self.bench.clock, self.bench.receipts, self.presence, self._count, note_event
        )

    async def _count(self, _sid: str) -> int:
        if self.away:
            raise Disconnected("away")
        return self.pending_count

    def beat(self, instance: str, start_id: str) -> None:
        seq = self.seqs[instance] = self.seqs.get(instance, 0) + 1
        xray = XrayState(status="running", start_id=start_id)
        self.presence.take("srv1", Heartbeat(instance=instance, seq=seq, sent_at_ms=0, xray=xray, host=HostFigures()))

    async def ask(self, *, instance: str = "i2", epoch: str = E2, **more: object) -> LedgerAnswer:
        query = codec.encode(LedgerQuery(instance=instance, epoch=epoch, **more))  # type: ignore[arg-type]
        reply = codec.decode(await self.inbox.on_ledger("srv1", 1, query), Reply)
        assert reply.ok
        return codec.decode(bytes(reply.data), LedgerAnswer)


@pytest.fixture
def desk(bench: LedgerBench) -> Desk:
    return Desk(bench)


async def test_committed_marks_are_told_and_receipts_sent_again(bench: LedgerBench, desk: Desk) -> None:
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, 1, 1)), batch(E1, 2, (ONE, INBOUND, 1, 1)))
    await bench.receipts.flush()
    bench.sender.sent.clear()
    answer = await desk.ask(known=(EpochMark(epoch=E1, through=3),))
    await bench.receipts.flush()
    assert [(each.epoch, each.through) for each in answer.committed] == [(E1, 2), (E2, 0)]
    assert [each.committed_through for each in bench.sender.of(RECEIPT)] == [2]
    assert answer.pending_count == 0


async def test_batches_of_a_start_beyond_what_the_asker_knows_are_foreign(bench: LedgerBench, desk: Desk) -> None:
    await bench.take("srv1", *(batch(E1, seq, (ONE, INBOUND, 1, 1)) for seq in (1, 2, 3)))
    await bench.take("srv1", batch(E2, 1, (ONE, INBOUND, 1, 1)), batch(E3, 1, start_id="s9"))
    known = (EpochMark(epoch=E1, through=1),)
    answer = await desk.ask(starts=("s1",), known=known)
    assert {(each.epoch, each.seq) for each in answer.foreign} == {(E1, 2), (E1, 3), (E2, 1)}
    assert answer.missing == ()
    assert (await desk.ask(starts=("s7",), known=known)).foreign == ()


async def test_a_foreign_batch_is_handed_out_byte_for_byte(bench: LedgerBench, desk: Desk) -> None:
    sent = batch(E1, 1, (ONE, INBOUND, 1, 1))
    await bench.take("srv1", sent)
    asked = codec.encode(BatchRequest(epoch=E1, seq=1))
    assert await desk.inbox.on_ledger_batch("srv1", 1, asked) == codec.encode(sent)
    with pytest.raises(BatchNotKept):
        await desk.inbox.on_ledger_batch("srv2", 2, asked)


async def test_batches_without_a_body_are_missing(bench: LedgerBench, desk: Desk) -> None:
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, 1, 1)))
    async with bench.database.write() as session:
        await session.execute(update(LedgerBody).values(body=None, body_bytes=0))
    answer = await desk.ask(starts=("s1",))
    assert ([each.seq for each in answer.missing], answer.foreign) == ([1], ())
    with pytest.raises(BatchNotKept):
        await desk.inbox.on_ledger_batch("srv1", 1, codec.encode(BatchRequest(epoch=E1, seq=1)))


async def test_what_waits_in_the_stream_makes_the_answer_not_final(desk: Desk) -> None:
    desk.pending_count = 3
    assert (await desk.ask()).pending_count == 3
    desk.away = True
    with pytest.raises(LedgerNotReady):
        await desk.ask()


async def test_a_predecessor_that_just_died_does_not_own_the_start_it_drove(bench: LedgerBench, desk: Desk) -> None:
    desk.beat("i1", "s1")
    bench.clock.advance(1)
    assert (await desk.ask(starts=("s1",))).pending_count == 1
    desk.beat("i2", "s1")
    answer = await desk.ask(starts=("s1",))
    assert (answer.pending_count, answer.owned_elsewhere) == (0, ())


async def test_a_dead_predecessor_of_a_restarted_machine_is_given_up_when_its_beat_is_overdue(
    bench: LedgerBench, desk: Desk
) -> None:
    desk.beat("i1", "s1")
    bench.clock.advance(3)
    desk.beat("i2", "s2")
    assert (await desk.ask(starts=("s1", "s2"))).pending_count == 1
    bench.clock.advance(10)
    answer = await desk.ask(starts=("s1", "s2"))
    assert (answer.pending_count, answer.owned_elsewhere) == (0, ())


async def test_a_living_double_owns_its_start_and_is_reported_once(bench: LedgerBench, desk: Desk) -> None:
    desk.beat("i1", "s1")
    desk.beat("i2", "s2")
    await desk.ask(starts=("s1", "s2"))
    bench.clock.advance(9)
    desk.beat("i1", "s1")
    answer = await desk.ask(starts=("s1", "s2"))
    await desk.ask(starts=("s1", "s2"))
    assert (answer.pending_count, answer.owned_elsewhere) == (0, ("s1",))
    async with bench.database.read() as session:
        (event,) = (await session.scalars(select(OutboxRow))).all()
        server = await session.get(Server, 1)
    assert event.payload["type"] == "agent_cloned"
    assert event.payload["details"]["instances"] == ["i1", "i2"]
    assert server is not None
    assert "copied" in server.last_error


async def test_more_names_than_an_answer_holds_end_as_missing_not_as_double(bench: LedgerBench, desk: Desk) -> None:
    for first in range(1, 1301, 50):
        await bench.take("srv1", *(batch(E1, seq, start_id="s" * 64) for seq in range(first, first + 50)))
    answer = await desk.ask(starts=("s" * 64,))
    assert len(answer.foreign) == 1200
    assert len(answer.missing) == 1
    assert bench.clock.now() == NOW
