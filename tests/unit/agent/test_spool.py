"""The spool's file: what is sealed stays, what is lost is told, what is full waits."""

import sqlite3
from pathlib import Path

import pytest

from harness.ledger_world import receipt_of
from xfleet_agent import allowance, outbox
from xfleet_agent.spool import Spool
from xfleet_contracts import codec
from xfleet_contracts.allowance import Allowance, Allowances
from xfleet_contracts.traffic import MAX_BATCH_BYTES, MAX_BATCH_ROWS, MAX_SEALED_WAITING, Batch, EpochMark, Gap

NOW_MS = 1_770_000_000_000
BIG = 2**52 - 1


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    opened = Spool(tmp_path / "spool.db", now_ms=NOW_MS)
    opened.begin_start("x0", NOW_MS)
    yield opened
    opened.close()


def seal(spool: Spool) -> list[outbox.SealedBatch]:
    spool.seal(now_ms=NOW_MS, instance="i")
    return outbox.list_unpublished(spool)


def test_batches_keep_their_limits_and_every_row(spool: Spool) -> None:
    counters = {f"c:{BIG - number}.{BIG}": (BIG, BIG) for number in range(5000)}
    spool.add_reading("x0", NOW_MS, counters)
    sealed = seal(spool)
    batches = [codec.decode(each.payload, Batch) for each in sealed]
    assert all(len(each.payload) <= MAX_BATCH_BYTES for each in sealed)
    assert all(len(batch.clients) <= MAX_BATCH_ROWS for batch in batches)
    assert [batch.seq for batch in batches] == list(range(1, len(batches) + 1))
    assert {row.client for batch in batches for row in batch.clients} == {BIG - number for number in range(5000)}


def test_at_most_sixty_four_batches_wait_and_the_rest_stays_open_and_merges(spool: Spool) -> None:
    for number in range(1, MAX_SEALED_WAITING + 6):
        spool.add_reading("x0", NOW_MS, {"c:1.10": (number, 0)})
        seal(spool)
    figures = spool.figures()
    assert (figures.sealed_batches_count, figures.open_rows_count) == (MAX_SEALED_WAITING, 1)


def test_a_counter_that_went_back_gives_nothing_and_is_named(spool: Spool) -> None:
    spool.add_reading("x0", NOW_MS, {"c:1.10": (100, 100)})
    reading = spool.add_reading("x0", NOW_MS, {"c:1.10": (99, 500), "c:2.10": (1, 1)})
    assert reading.backwards == ("c:1.10",)
    assert reading.moved == {2: 2}
    [batch] = seal(spool)
    assert [(row.client, row.up_bytes) for row in codec.decode(batch.payload, Batch).clients] == [(1, 100), (2, 1)]


def test_a_receipt_of_another_body_is_ignored(spool: Spool) -> None:
    spool.add_reading("x0", NOW_MS, {"c:1.10": (1, 0)})
    [batch] = seal(spool)
    assert outbox.accept_receipt(spool, receipt_of(b"other", batch.epoch, 1), now_ms=NOW_MS) == 0
    assert spool.waiting_count() == 1
    assert outbox.accept_receipt(spool, receipt_of(batch.payload, batch.epoch, 1), now_ms=NOW_MS) == 1
    assert spool.waiting_count() == 0


def test_what_the_archive_no_longer_has_becomes_a_gap_and_never_blocks_the_floor(spool: Spool) -> None:
    for number in range(1, 4):
        spool.add_reading("x0", NOW_MS, {"c:1.10": (number, 0)})
        seal(spool)
    last = outbox.list_unpublished(spool)[-1]
    outbox.accept_receipt(spool, receipt_of(last.payload, last.epoch, 3), now_ms=NOW_MS)
    spool.db.execute("DELETE FROM batches WHERE seq = 2")
    assert outbox.resend_above(spool, EpochMark(epoch=last.epoch, through=1), now_ms=NOW_MS) == (1, 1)
    outbox.promote_resends(spool)
    again = [codec.decode(each.payload, Batch) for each in outbox.list_unpublished(spool)]
    assert [batch.seq for batch in again] == [2, 3]
    assert [gap.reason for gap in again[0].gaps] == ["archive_lost"]
    assert not again[0].clients


def test_the_archive_keeps_its_size_and_its_age(spool: Spool) -> None:
    for number in range(1, 11):
        spool.add_reading("x0", NOW_MS, {"c:1.10": (number, 0)})
        seal(spool)
    last = outbox.list_unpublished(spool)[-1]
    outbox.accept_receipt(spool, receipt_of(last.payload, last.epoch, 10), now_ms=NOW_MS)
    assert outbox.prune(spool, now_ms=NOW_MS, cap_bytes=5 * len(last.payload)) == 5
    assert outbox.prune(spool, now_ms=NOW_MS + outbox.ARCHIVE_KEPT_MS + 1) == 5


def test_a_full_disk_moves_no_mark_so_nothing_is_lost(spool: Spool) -> None:
    spool.add_reading("x0", NOW_MS, {"c:1.10": (100, 0)})
    pages = spool.db.execute("PRAGMA page_count").fetchone()[0]
    spool.db.execute(f"PRAGMA max_page_count={pages}")
    crowd = {f"c:{number}.10": (1, 1) for number in range(1, 20_000)}
    with pytest.raises(sqlite3.OperationalError, match="full"):
        spool.add_reading("x0", NOW_MS, crowd | {"c:1.10": (150, 0)})
    spool.forget_caches()
    spool.db.execute("PRAGMA max_page_count=1000000")
    assert spool.add_reading("x0", NOW_MS, {"c:1.10": (150, 0)}).moved == {1: 50}


def test_a_damaged_file_is_set_aside_and_declared(tmp_path: Path) -> None:
    (tmp_path / "spool.db").write_bytes(b"not a database, not at all" * 100)
    opened = Spool(tmp_path / "spool.db", now_ms=NOW_MS)
    assert opened.damaged is not None
    assert opened.damaged.exists()
    [batch] = seal(opened)
    assert [gap.reason for gap in codec.decode(batch.payload, Batch).gaps] == ["spool_lost"]
    opened.close()


def test_an_allowance_counts_what_the_ledger_had_not_seen(spool: Spool) -> None:
    for number in range(1, 5):
        spool.add_reading("x0", NOW_MS, {"c:1.10": (number * 100, 0)})
        seal(spool)
    spool.add_reading("x0", NOW_MS, {"c:1.10": (450, 0)})
    told = Allowances(
        as_of_epoch=spool.epoch, as_of_floor=1, items=(Allowance(client=1, allowance_bytes=400, serial=1),)
    )
    assert allowance.accept(spool, told) == 1
    assert allowance.accept(spool, told) == 0
    assert allowance.list_exhausted(spool) == {}
    spool.add_reading("x0", NOW_MS, {"c:1.10": (499, 0)})
    assert allowance.list_exhausted(spool) == {}
    spool.add_reading("x0", NOW_MS, {"c:1.10": (500, 0)})
    assert allowance.list_exhausted(spool) == {1: 1}
    lifted = Allowances(items=(Allowance(client=1, allowance_bytes=None, serial=2),))
    assert allowance.accept(spool, lifted) == 1
    assert allowance.list_exhausted(spool) == {}


def test_a_gap_without_rows_is_sealed_too(spool: Spool) -> None:
    spool.add_gap(Gap(from_at_ms=1, to_at_ms=2, reason="xray_died", start_id="x0"))
    [batch] = seal(spool)
    assert codec.decode(batch.payload, Batch).gaps == (
        Gap(from_at_ms=1, to_at_ms=2, reason="xray_died", start_id="x0"),
    )
