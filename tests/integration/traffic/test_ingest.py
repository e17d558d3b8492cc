from datetime import timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import delete, select, update

from harness.ledger import INBOUND, NOW, ONE, OTHER_INBOUND, TWO, LedgerBench, batch, delivery, epoch_of
from xfleet_contracts import codec
from xfleet_contracts.receipt import FORK, RECEIPT
from xfleet_contracts.traffic import Gap, TagRow
from xfleet_controller.clients.models import Tombstone
from xfleet_controller.fleet.models import OutboxRow
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.servers.models import Server
from xfleet_controller.traffic.models import ClientTotal, LedgerBody, LedgerCursor, LedgerGap, LedgerKey, ServerMinute
from xfleet_controller.traffic.reading import unpack

E1, E2 = epoch_of(1), epoch_of(2)


async def test_a_batch_is_added_to_totals_acknowledged_and_receipted(bench: LedgerBench) -> None:
    sent = batch(E1, 1, (ONE, INBOUND, 10, 20), (TWO, INBOUND, 1, 2))
    (message,) = await bench.take("srv1", sent)
    await bench.receipts.flush()

    assert await bench.totals() == {ONE: (10, 20), TWO: (1, 2)}
    assert await bench.tags() == {("inbound", str(INBOUND)): (11, 22)}
    assert message.acked_count == 1
    ((sid, verb, receipt),) = bench.sender.sent
    assert (sid, verb) == ("srv1", RECEIPT)
    assert (receipt.epoch, receipt.committed_through) == (E1, 1)
    assert receipt.digest == codec.sha256_hex(codec.encode(sent))
    assert (await bench.total(ONE)).last_online_at == NOW


async def test_the_stored_body_is_the_payload_byte_for_byte(bench: LedgerBench) -> None:
    (message,) = await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, 10, 20)))
    async with bench.database.read() as session:
        body = (await session.scalars(select(LedgerBody))).one()
    assert unpack(body.body or b"") == message.payload
    assert body.body_bytes == len(body.body or b"")


async def test_the_same_batch_again_changes_nothing_and_is_receipted_again(bench: LedgerBench) -> None:
    sent = batch(E1, 1, (ONE, INBOUND, 10, 20))
    await bench.take("srv1", sent, sent)
    await bench.take("srv1", sent)
    await bench.receipts.flush()
    assert await bench.totals() == {ONE: (10, 20)}
    assert len(bench.sender.of(RECEIPT)) == 1


async def test_a_hole_holds_the_receipt_back_until_it_is_filled(bench: LedgerBench) -> None:
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, 1, 0)), batch(E1, 3, (ONE, INBOUND, 4, 0)))
    await bench.take("srv1", batch(E1, 4, (ONE, INBOUND, 8, 0)))
    await bench.receipts.flush()
    assert [each.committed_through for each in bench.sender.of(RECEIPT)] == [1]
    assert await bench.count(LedgerKey) == 2

    await bench.take("srv1", batch(E1, 3, (ONE, INBOUND, 4, 0)))
    await bench.take("srv1", batch(E1, 2, (ONE, INBOUND, 2, 0)))
    await bench.receipts.flush()
    assert bench.sender.of(RECEIPT)[-1].committed_through == 4
    assert await bench.totals() == {ONE: (15, 0)}
    assert await bench.count(LedgerKey) == 0


async def test_epochs_and_servers_are_counted_apart(bench: LedgerBench) -> None:
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, 1, 0)), batch(E2, 1, (ONE, INBOUND, 2, 0)))
    await bench.take("srv2", batch(E1, 1, (ONE, OTHER_INBOUND, 4, 0)))
    assert await bench.totals() == {ONE: (7, 0)}
    assert await bench.count(LedgerCursor) == 3


@pytest.mark.parametrize("at_once", [True, False])
async def test_another_body_under_a_taken_number_is_a_fork(bench: LedgerBench, at_once: bool) -> None:
    first, second = batch(E1, 1, (ONE, INBOUND, 10, 0)), batch(E1, 1, (ONE, INBOUND, 99, 0))
    if at_once:
        await bench.take("srv1", first, second)
    else:
        await bench.take("srv1", first)
        await bench.take("srv1", second)
    await bench.take("srv1", second)
    await bench.receipts.flush()

    assert await bench.totals() == {ONE: (10, 0)}
    (kept,) = await bench.rejected()
    assert (kept.reason, kept.payload) == ("fork", codec.encode(second))
    fork = bench.sender.of(FORK)[0]
    assert fork.refused_digest == codec.sha256_hex(codec.encode(second))
    assert fork.committed_digest == codec.sha256_hex(codec.encode(first))
    async with bench.database.read() as session:
        (event,) = (await session.scalars(select(OutboxRow))).all()
    assert event.payload["type"] == "batch_forked"


async def test_a_fork_below_the_floor_is_still_recognised(bench: LedgerBench) -> None:
    await bench.take("srv1", *(batch(E1, seq, (ONE, INBOUND, 1, 0)) for seq in (1, 2, 3)))
    await bench.take("srv1", batch(E1, 2, (ONE, INBOUND, 7, 7)))
    assert [each.reason for each in await bench.rejected()] == ["fork"]


async def test_an_unknown_server_is_set_aside_and_acknowledged(bench: LedgerBench) -> None:
    (message,) = await bench.take("nobody", batch(E1, 1, (ONE, INBOUND, 10, 20)))
    assert message.acked_count == 1
    assert [(each.reason, each.sid) for each in await bench.rejected()] == [("unknown_server", "nobody")]
    assert await bench.totals() == {}


async def test_batches_that_come_after_their_server_was_deleted_still_count(bench: LedgerBench) -> None:
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, 10, 20)))
    async with bench.database.write() as session:
        server = await session.scalar(select(Server).where(Server.slug == "srv1"))
        assert server is not None
        now = server.created_at
        session.add(Tombstone(kind="server", key="srv1", name="srv1", server_id=server.id, deleted_at=now))
        session.add(Tombstone(kind="inbound", key=str(INBOUND), name="in", server_id=server.id, deleted_at=now))
        await session.execute(delete(Inbound).where(Inbound.server_id == server.id))
        await session.delete(server)
    await bench.take("srv1", batch(E1, 2, (ONE, INBOUND, 1, 2)))
    assert await bench.totals() == {ONE: (11, 22)}
    assert await bench.rejected() == []


MALFORMED = [
    b"",
    b"{",
    b"[]",
    b"\xff\xfe",
    b"null",
    b"[" * 5000,
    b'{"epoch":"x","seq":1,"instance":"i","start_id":"s","from_at_ms":1,"to_at_ms":2}',
    b'{"epoch":"' + b"0" * 24 + b'","seq":0,"instance":"i","start_id":"s","from_at_ms":1,"to_at_ms":2}',
    b'{"epoch":"'
    + b"0" * 24
    + b'","seq":99999999999999999999,"instance":"","start_id":"s","from_at_ms":1,"to_at_ms":2}',
    b'{"epoch":"' + b"0" * 24 + b'","seq":1,"instance":"a\\u0000","start_id":"s","from_at_ms":1,"to_at_ms":2}',
    b'{"epoch":"' + b"0" * 24 + b'","seq":1,"instance":"i","start_id":"\\ud800","from_at_ms":1,"to_at_ms":2}',
    b'{"epoch":"' + b"0" * 24 + b'","seq":1,"instance":"i","start_id":"s","from_at_ms":1,"to_at_ms":2,"clients":7}',
    b"x" * (200 * 1024),
]


async def test_malformed_messages_are_set_aside_once_and_the_rest_counts(bench: LedgerBench) -> None:
    good = batch(E1, 1, (ONE, INBOUND, 10, 20))
    messages = await bench.take("srv1", *MALFORMED, good)
    await bench.take("srv1", *MALFORMED)
    assert [each.acked_count for each in messages] == [1] * len(messages)
    assert await bench.totals() == {ONE: (10, 20)}
    kept = await bench.rejected()
    assert {each.payload for each in kept} == set(MALFORMED)
    assert len(kept) == len(MALFORMED)
    assert {each.reason for each in kept} == {"malformed", "too_large"}


HOUR = int(NOW.timestamp()) // 3600
BAD_ROWS: list[tuple[str, Any]] = [
    ("malformed", [ONE, INBOUND, HOUR, -5, 1]),
    ("malformed", [ONE, INBOUND, HOUR, 2**70, 1]),
    ("malformed", ["1", INBOUND, HOUR, 5, 1]),
    ("malformed", {"client": ONE}),
    ("malformed", [0, INBOUND, HOUR, 5, 1]),
    ("foreign_inbound", [ONE, OTHER_INBOUND, HOUR, 5, 1]),
    ("foreign_inbound", [ONE, 77, HOUR, 5, 1]),
    ("unknown_client", [78, INBOUND, HOUR, 5, 1]),
    ("impossible_bytes", [ONE, INBOUND, HOUR, 2**62, 1]),
    ("impossible_bytes", [ONE, INBOUND, HOUR, 1, 10**12]),
    ("impossible_hour", [ONE, INBOUND, HOUR + 3, 1, 1]),
    ("impossible_hour", [ONE, INBOUND, HOUR - 401 * 24, 1, 1]),
]


@pytest.mark.parametrize(("reason", "row"), BAD_ROWS)
async def test_a_bad_row_is_set_aside_and_the_others_count(bench: LedgerBench, reason: str, row: Any) -> None:
    fields = msgspec.json.decode(codec.encode(batch(E1, 1, (ONE, INBOUND, 10, 20), (TWO, INBOUND, 3, 4))))
    fields["clients"].insert(1, row)
    await bench.take("srv1", codec.canonical(fields))
    await bench.take("srv1", batch(E1, 2, (ONE, INBOUND, 1, 1)))
    await bench.receipts.flush()

    assert await bench.totals() == {ONE: (11, 21), TWO: (3, 4)}
    (kept,) = await bench.rejected()
    assert kept.reason == reason
    assert msgspec.json.decode(kept.payload) == {"clients": [row], "tags": []}
    assert bench.sender.of(RECEIPT)[-1].committed_through == 2
    async with bench.database.read() as session:
        body = (await session.scalars(select(LedgerBody).order_by(LedgerBody.seq))).first()
    assert body is not None
    assert body.skipped == {"clients": [1], "tags": []}


async def test_a_foreign_or_broken_tag_is_set_aside(bench: LedgerBench) -> None:
    tags = (
        TagRow("inbound", str(OTHER_INBOUND), HOUR, 1, 1),
        TagRow("inbound", "api", HOUR, 1, 1),
        TagRow("outbound", "direct", HOUR, 5, 6),
        TagRow("outbound", "\x00", HOUR, 5, 6),
    )
    await bench.take("srv1", batch(E1, 1, tags=tags))
    assert await bench.tags() == {("outbound", "direct"): (5, 6)}
    assert sorted(each.reason for each in await bench.rejected()) == ["foreign_inbound", "malformed"]


async def test_many_rows_that_together_beat_the_line_rate_are_set_aside_from_there_on(bench: LedgerBench) -> None:
    most = 100 * 10**9 // 8 * 70
    row = (ONE, INBOUND, most // 2, 0)
    await bench.take("srv1", batch(E1, 1, row, row, row, tags=()))
    assert await bench.totals() == {ONE: (most // 2 * 2, 0)}
    assert [each.reason for each in await bench.rejected()] == ["impossible_bytes"]


async def test_an_impossible_interval_is_clamped_to_the_brokers_time(bench: LedgerBench) -> None:
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, 1, 1), to_at_ms=2**60, from_at_ms=-(2**60)))
    await bench.take("srv1", batch(E1, 2, (ONE, INBOUND, 1, 1), at=NOW - timedelta(days=3)))
    async with bench.database.read() as session:
        first, second = (await session.scalars(select(LedgerBody).order_by(LedgerBody.seq))).all()
    assert first.to_at == NOW + timedelta(seconds=60)
    assert second.to_at == first.to_at
    assert second.from_at == NOW - timedelta(days=3, seconds=10)


async def test_rows_of_deleted_clients_and_inbounds_still_count(bench: LedgerBench) -> None:
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, 1, 1)))
    await bench.bury("client", ONE)
    await bench.bury("inbound", INBOUND, 1)
    again = LedgerBench(bench.database)
    await again.take("srv1", batch(E1, 2, (ONE, INBOUND, 2, 2)))
    assert await again.totals() == {ONE: (3, 3)}
    assert await again.rejected() == []


async def test_rows_from_before_a_reset_count_in_history_only(bench: LedgerBench) -> None:
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, 100, 0), (TWO, INBOUND, 100, 0)))
    reset_at = NOW + timedelta(seconds=25)
    async with bench.database.write() as session:
        await session.execute(
            update(ClientTotal)
            .where(ClientTotal.client_ref == ONE)
            .values(period_up_bytes=0, period_down_bytes=0, period_started_at=reset_at)
        )
    bench.clock.advance(60)
    await bench.take(
        "srv1",
        batch(E1, 2, (ONE, INBOUND, 10, 1), (TWO, INBOUND, 10, 1), at=NOW + timedelta(seconds=20)),
        batch(E1, 3, (ONE, INBOUND, 5, 2), at=NOW + timedelta(seconds=30)),
        batch(E1, 4, (ONE, INBOUND, 6, 3), at=reset_at),
    )
    one, two = await bench.total(ONE), await bench.total(TWO)
    assert (one.up_bytes, one.period_up_bytes, one.period_down_bytes) == (121, 11, 5)
    assert (two.up_bytes, two.period_up_bytes, two.period_down_bytes) == (110, 110, 1)


async def test_gaps_are_kept_with_their_interval(bench: LedgerBench) -> None:
    at = int(NOW.timestamp() * 1000)
    await bench.take(
        "srv1", batch(E1, 1, gaps=(Gap(from_at_ms=at - 9000, to_at_ms=at, reason="xray_died", start_id="s0"),))
    )
    async with bench.database.read() as session:
        gap = (await session.scalars(select(LedgerGap))).one()
    assert (gap.reason, gap.from_at, gap.to_at) == ("xray_died", NOW - timedelta(seconds=9), NOW)


async def test_bytes_of_a_minute_are_added_per_server(bench: LedgerBench) -> None:
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, 1, 2)), batch(E1, 2, (TWO, INBOUND, 4, 8)))
    async with bench.database.read() as session:
        minute = (await session.scalars(select(ServerMinute))).one()
    assert (minute.minute, minute.up_bytes, minute.down_bytes) == (int(NOW.timestamp()) // 60, 5, 10)


async def test_a_wild_sequence_number_does_not_poison_the_epoch(bench: LedgerBench) -> None:
    await bench.take("srv1", batch(E1, 2**52, (ONE, INBOUND, 1, 1)))
    assert await bench.totals() == {}
    assert [each.reason for each in await bench.rejected()] == ["impossible_seq"]
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, 1, 1)))
    assert await bench.totals() == {ONE: (1, 1)}


async def test_a_batch_that_breaks_the_ingest_is_set_aside_alone(bench: LedgerBench) -> None:
    def explode(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a bug")

    ingest = bench.another_ingest()
    ingest._note_event = explode
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, 1, 0)))
    messages = [
        delivery("srv1", batch(E1, 1, (ONE, INBOUND, 9, 9))),
        delivery("srv1", batch(E1, 2, (ONE, INBOUND, 2, 0))),
        delivery("srv1", batch(E1, 3, (ONE, INBOUND, 4, 0))),
    ]
    await ingest.take(messages)
    assert await bench.totals() == {ONE: (7, 0)}
    assert [each.reason for each in await bench.rejected()] == ["not_committable"]
    assert [each.acked_count for each in messages] == [1, 1, 1]
