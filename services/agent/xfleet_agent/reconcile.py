"""Reconcile: what a rolled-back or copied state directory does with the ledger's answer, so that sums stay exact.

Everything here changes the spool by one transaction per finding and never reads the network: bodies that are needed
are handed in.
"""

import sqlite3
from collections.abc import Iterable

import msgspec

from xfleet_agent import outbox
from xfleet_agent.database import transaction
from xfleet_agent.spool import Spool, insert_gap, wire_to_rows
from xfleet_contracts.receipt import Receipt
from xfleet_contracts.traffic import Batch, BatchName, Gap, LedgerAnswer, LedgerQuery
from xfleet_runtime.ids import new_id

DISPUTE_S = 45.0
"""How long the ledger must insist that another live instance drives a start before its open rows are dropped.

Longer than OFFLINE_AFTER_S: our own predecessor, killed a moment ago, still looks alive to the controller.
"""


class Findings(msgspec.Struct, kw_only=True):
    """What has to be done about an answer, and needs bodies or another question."""

    forked: bool = False
    """Somebody seals under our current epoch: the machine was copied or reverted with its memory."""
    subtract: tuple[BatchName, ...] = ()
    missing: tuple[BatchName, ...] = ()
    doubtful: tuple[BatchName, ...] = ()
    """Ours, covered by the ledger's floor, but not proven to be the same bytes."""
    resent_count: int = 0
    lost_count: int = 0


def question(spool: Spool, *, instance: str, starts: tuple[str, ...]) -> LedgerQuery:
    """What to ask the ledger about these Xray starts."""
    known = outbox.list_known(spool, starts)
    return LedgerQuery(instance=instance, epoch=spool.epoch, starts=starts, known=known)


def digest_answer(spool: Spool, answer: LedgerAnswer, *, now_ms: int) -> Findings:
    """Takes receipts and lowered floors from a final answer and says what else it asks for."""
    findings = Findings()
    if any(name.epoch == spool.epoch for name in (*answer.foreign, *answer.missing)):
        findings.forked = True
        return findings
    doubtful: list[BatchName] = []
    for mark in answer.committed:
        receipt = Receipt(epoch=mark.epoch, committed_through=mark.through, digest=mark.digest)
        outbox.accept_receipt(spool, receipt, now_ms=now_ms)
        doubtful += [
            BatchName(epoch=mark.epoch, seq=seq, digest=digest)
            for seq, digest in outbox.list_waiting(spool, mark.epoch, mark.through)
        ]
        resent, lost = outbox.resend_above(spool, mark, now_ms=now_ms)
        findings.resent_count += resent
        findings.lost_count += lost
    outbox.forget_published(spool, answer.committed)
    findings.doubtful = tuple(doubtful)
    findings.subtract = tuple(_unsettled(spool, answer.foreign))
    findings.missing = tuple(_unsettled(spool, answer.missing))
    return findings


def _unsettled(spool: Spool, names: Iterable[BatchName]) -> list[BatchName]:
    settled = set(spool.db.execute("SELECT epoch, seq FROM settled_foreign"))
    return [n for n in names if (n.epoch, n.seq) not in settled and not outbox.is_sealed_here(spool, n)]


def fork(spool: Spool, process_ids: tuple[str, ...]) -> None:
    """Parts from our double: new epoch, and new start ids for the Xray processes both once shared."""
    for process_id in process_ids:
        spool.rename_start(process_id, new_id())
    spool.begin_epoch()


def subtract(spool: Spool, batch: Batch) -> None:
    """Takes out of the open rows what this batch of another self already brought into the ledger.

    What is not open yet becomes a debt of that Xray start, paid by its next readings.
    """
    with transaction(spool.db) as db:
        new = db.execute("INSERT OR IGNORE INTO settled_foreign VALUES (?, ?)", (batch.epoch, batch.seq)).rowcount
        if not new:
            return
        for counter, hour, up, down in wire_to_rows(batch):
            owed_up, owed_down = _take_open(db, (batch.start_id, counter, hour), up, down)
            if owed_up or owed_down:
                db.execute(
                    "INSERT INTO debts SELECT ?, ?, ?, ? WHERE EXISTS"
                    " (SELECT 1 FROM starts WHERE start_id = ? AND alive = 1)"
                    " ON CONFLICT (start_id, counter) DO UPDATE SET up = up + excluded.up, down = down + excluded.down",
                    (batch.start_id, counter, owed_up, owed_down, batch.start_id),
                )
        db.execute("DELETE FROM open_rows WHERE up = 0 AND down = 0")
    spool.forget_caches()


def _take_open(db: sqlite3.Connection, name: tuple[str, str, int], up: int, down: int) -> tuple[int, int]:
    """Takes bytes out of a counter's open rows, those of the same hour first, then the newest; what was not there."""
    start_id, counter, hour = name
    rows = db.execute(
        "SELECT hour, up, down FROM open_rows WHERE start_id = ? AND counter = ? ORDER BY hour = ? DESC, hour DESC",
        (start_id, counter, hour),
    ).fetchall()
    for open_hour, open_up, open_down in rows:
        take_up, take_down = min(up, open_up), min(down, open_down)
        db.execute(
            "UPDATE open_rows SET up = up - ?, down = down - ? WHERE start_id = ? AND counter = ? AND hour = ?",
            (take_up, take_down, start_id, counter, open_hour),
        )
        up, down = up - take_up, down - take_down
    return up, down


def drop_start(spool: Spool, start_id: str, *, now_ms: int, reason: str | None) -> int:
    """Drops the open rows of a start that cannot be told apart from what is counted; `reason` declares a gap."""
    with transaction(spool.db) as db:
        span = db.execute("SELECT from_at_ms, to_at_ms FROM starts WHERE start_id = ?", (start_id,)).fetchone()
        dropped = db.execute("DELETE FROM open_rows WHERE start_id = ?", (start_id,)).rowcount
        if reason is not None:
            from_at_ms, to_at_ms = span or (now_ms, now_ms)
            insert_gap(
                db,
                Gap(
                    from_at_ms=from_at_ms, to_at_ms=to_at_ms, start_id=start_id,
                    reason="archive_lost" if reason == "archive_lost" else "clone_unresolved",
                ),
            )  # fmt: skip
        db.execute("DELETE FROM starts WHERE start_id = ? AND alive = 0", (start_id,))
    return dropped


def settle_missing(spool: Spool, names: Iterable[BatchName]) -> None:
    """Remembers batches whose bodies are gone, so that they are never looked at again."""
    spool.db.executemany("INSERT OR IGNORE INTO settled_foreign VALUES (?, ?)", [(n.epoch, n.seq) for n in names])


def doubted(spool: Spool, name: BatchName, ledger_digest: str | None, *, now_ms: int) -> bool:
    """Decides about one of our batches below the ledger's floor; True when its rows were opened again.

    `ledger_digest` is that of the ledger's body, None when it is no longer kept (then the floor counts as proof).
    """
    if ledger_digest is None or ledger_digest == name.digest:
        outbox.settle_one(spool, name.epoch, name.seq, now_ms=now_ms)
        return False
    outbox.reopen(spool, name.epoch, name.seq)
    return True
