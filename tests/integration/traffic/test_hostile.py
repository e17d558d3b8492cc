"""Agents that send nonsense: they lose their own nonsense, and nobody's receipts, totals or answers stop for it."""

from typing import Any

import msgspec
import pytest

from harness.ledger import INBOUND, NOW, ONE, OTHER_INBOUND, LedgerBench, batch, delivery, epoch_of
from xfleet_contracts import codec
from xfleet_contracts.receipt import RECEIPT
from xfleet_contracts.traffic import ClientRow, EpochMark, LedgerQuery, TagRow
from xfleet_controller.traffic import store
from xfleet_controller.traffic.inbox import LedgerInbox
from xfleet_controller.traffic.models import ClientTotal, LedgerKey
from xfleet_controller.traffic.rollup import RollUp

E1, E2 = epoch_of(1), epoch_of(2)
HOUR = int(NOW.timestamp()) // 3600


def altered(seq: int, **fields: Any) -> bytes:
    """A batch of that number with fields no agent of ours would send."""
    plain = msgspec.json.decode(codec.encode(batch(E1, seq, (ONE, INBOUND, 2, 0))))
    return codec.canonical(plain | fields)


UNREADABLE = {
    "too large": altered(2, padding="x" * 140_000),
    "too many rows": altered(2, clients=[[ONE, INBOUND, HOUR, 0, 0]] * 2500),
    "a start that is no word": altered(2, start_id="two words\n"),
    "a moment that is text": altered(2, to_at_ms="soon"),
    "no rows but a number": altered(2, clients=7),
    "a gap of no kind": altered(2, gaps={"a": 1}),
}


@pytest.mark.parametrize("name", sorted(UNREADABLE))
async def test_an_unreadable_batch_takes_its_number_and_holds_no_receipt_back(bench: LedgerBench, name: str) -> None:
    first, third = batch(E1, 1, (ONE, INBOUND, 1, 0)), batch(E1, 3, (ONE, INBOUND, 4, 0))
    await bench.take("srv1", first, UNREADABLE[name])
    (again,) = await bench.take("srv1", UNREADABLE[name])
    await bench.take("srv1", third)
    await bench.receipts.flush()
    assert again.acked_count == 1
    assert bench.sender.of(RECEIPT)[-1].committed_through == 3
    assert bench.sender.of(RECEIPT)[-1].digest == codec.sha256_hex(codec.encode(third))
    assert await bench.totals() == {ONE: (5, 0)}
    assert len(await bench.rejected()) == 1
    assert await bench.count(LedgerKey) == 0
    await RollUp(bench.database, bench.clock, bench.metrics).step()


async def test_what_no_database_can_add_up_takes_its_number(bench: LedgerBench) -> None:
    tags = tuple(TagRow("outbound", f"t{n}", HOUR, 2**62, 2**62) for n in range(3))
    huge = batch(E1, 1, (ONE, INBOUND, 1, 0), tags=tags, from_at_ms=0)
    await bench.take("srv1", huge)
    await bench.take("srv1", batch(E1, 2, (ONE, INBOUND, 4, 0)))
    await bench.receipts.flush()
    assert bench.sender.of(RECEIPT)[-1].committed_through == 2
    assert (await bench.totals())[ONE][0] >= 4


async def test_totals_never_grow_past_what_a_database_can_hold(bench: LedgerBench) -> None:
    row, tag = ClientRow(ONE, INBOUND, HOUR, 2**54, 2**54), TagRow("inbound", str(INBOUND), HOUR, 2**54, 2**54)
    for first in range(1, 640, 64):
        claims = (batch(E1, seq, clients=(row,), tags=(tag,), from_at_ms=0) for seq in range(first, first + 64))
        await bench.take("srv1", *claims)
    await RollUp(bench.database, bench.clock, bench.metrics).step()
    await bench.take("srv2", batch(E1, 1, (ONE, OTHER_INBOUND, 4, 0)))
    up, down = (await bench.totals())[ONE]
    assert (type(up), type(down)) == (int, int)
    async with bench.database.read() as session:
        total = await session.get_one(ClientTotal, ONE)
        assert total.period_up_bytes + total.period_down_bytes < 2**63
    await bench.receipts.flush()
    assert all(type(each) is int for both in (await bench.tags()).values() for each in both)
    assert {sid for sid, verb, _ in bench.sender.sent if verb == RECEIPT} == {"srv1", "srv2"}


async def test_the_holes_of_one_server_hide_no_batches_of_another(
    bench: LedgerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ABOVE_FLOOR_COUNT", 60)
    await bench.take("srv1", *(batch(E1, seq, (ONE, INBOUND, 1, 0)) for seq in range(2, 72)))
    await bench.take("srv2", *(batch(E2, seq, (ONE, OTHER_INBOUND, 1, 0)) for seq in range(52, 56)))
    await bench.take("srv2", *(batch(E2, seq, (ONE, OTHER_INBOUND, 1, 0)) for seq in range(2, 52)))
    hostile = batch(E1, 72, (ONE, INBOUND, 1, 0))
    closing = batch(E2, 1, (ONE, OTHER_INBOUND, 1, 0))
    await bench.ingest.take([delivery("srv1", hostile), delivery("srv2", closing)])
    await bench.receipts.flush()
    assert [each.committed_through for sid, _, each in bench.sender.sent if sid == "srv2"] == [55]


class Nobody:
    """Presence that never heard anybody."""

    offline_after_s = 35.0

    def get(self, sid: str) -> None:
        return None


def inbox_of(bench: LedgerBench) -> LedgerInbox:
    async def none_pending(_sid: str) -> int:
        return 0

    return LedgerInbox(bench.database, bench.clock, bench.receipts, Nobody(), none_pending, lambda *_, **__: None)


async def test_an_agent_that_was_restarted_a_thousand_times_is_answered(bench: LedgerBench) -> None:
    sent = [batch(epoch_of(n), 1, (ONE, INBOUND, 1, 0)) for n in range(1, 1601)]
    for start in range(0, len(sent), 64):
        await bench.take("srv1", *sent[start : start + 64])
    known = tuple(EpochMark(epoch=epoch_of(n), through=1) for n in range(1001, 1601))
    query = LedgerQuery(instance="i2", epoch=epoch_of(9999), starts=("s1",), known=known)
    answer = await inbox_of(bench).answer("srv1", 1, query)
    codec.encode(answer)
    told = {mark.epoch: mark.through for mark in answer.committed}
    assert all(told[mark.epoch] == 1 for mark in known)
    assert told[query.epoch] == 0
    assert {name.epoch for name in answer.foreign} == {epoch_of(n) for n in range(1, 1001)}


async def test_a_question_of_any_size_is_answered_or_refused(bench: LedgerBench) -> None:
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, 1, 0)))
    many = tuple(EpochMark(epoch=epoch_of(n), through=2**62) for n in range(1, 2000))
    query = LedgerQuery(instance="i2", epoch=E2, starts=tuple(f"s{n}" for n in range(9000)), known=many)
    payload = codec.encode(query)
    answer = await inbox_of(bench).on_ledger("srv1", 1, payload)
    assert len(answer) < 240 * 1024
