"""Outbox: sealed batches on their way to the ledger, and the archive of those it receipted.

A batch leaves the outbox only on a receipt that carries the digest of the very batch we sealed under that number. The
broker's acknowledgement only stops us from publishing again at once. Functions over a `Spool`, each one transaction.
"""

import json
import sqlite3
from collections.abc import Iterable

import msgspec

from xfleet_agent.database import transaction
from xfleet_agent.spool import ARCHIVED, RESEND, WAITING, Spool, add_open_rows, insert_gap, wire_to_rows
from xfleet_contracts import codec
from xfleet_contracts.receipt import Fork, Receipt
from xfleet_contracts.traffic import MAX_SEALED_WAITING, Batch, BatchName, EpochMark, Gap

ARCHIVE_KEPT_MS = 7 * 86_400_000
ARCHIVE_BYTES = 256 * 1024 * 1024
MAX_KNOWN_EPOCHS = 600
"""Epochs that one question to the ledger is about: its answer has to fit into a message."""


class SealedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as it goes out."""

    epoch: str
    seq: int
    digest: str
    payload: bytes
    tries: int

    @property
    def message_id(self) -> str:
        """What the broker deduplicates by."""
        return f"{self.epoch}:{self.seq}:{self.digest}"


def list_unpublished(spool: Spool, limit: int = MAX_SEALED_WAITING) -> list[SealedBatch]:
    """Waiting batches that the broker does not have as far as we know, oldest first."""
    rows = spool.db.execute(
        "SELECT epoch, seq, digest, payload, tries FROM batches WHERE state = ? AND published = 0"
        " ORDER BY ordinal, seq LIMIT ?",
        (WAITING, limit),
    )
    return [SealedBatch(epoch=r[0], seq=r[1], digest=r[2], payload=r[3], tries=r[4]) for r in rows]


def list_waiting(spool: Spool, epoch: str, through: int) -> list[tuple[int, str]]:
    """(seq, digest) of the batches of an epoch up to that number that wait for a receipt."""
    return spool.db.execute(
        "SELECT seq, digest FROM batches WHERE epoch = ? AND seq <= ? AND state != ? ORDER BY seq",
        (epoch, through, ARCHIVED),
    ).fetchall()


def mark_published(spool: Spool, batch: SealedBatch) -> None:
    """The broker said it has it."""
    spool.db.execute(
        "UPDATE batches SET published = 1, tries = tries + 1 WHERE epoch = ? AND seq = ?", (batch.epoch, batch.seq)
    )


def forget_published(spool: Spool, marks: Iterable[EpochMark]) -> int:
    """Publishes again what the ledger does not have although the broker holds nothing of ours."""
    count = 0
    with transaction(spool.db) as db:
        for mark in marks:
            count += db.execute(
                "UPDATE batches SET published = 0 WHERE epoch = ? AND seq > ? AND state = ? AND published = 1",
                (mark.epoch, mark.through, WAITING),
            ).rowcount
    return count


def accept_receipt(spool: Spool, receipt: Receipt, *, now_ms: int) -> int:
    """Moves what the receipt covers into the archive; 0 when its digest is not that of our batch."""
    if not _is_ours(spool.db, receipt.epoch, receipt.committed_through, receipt.digest):
        return 0
    with transaction(spool.db) as db:
        moved = db.execute(
            "UPDATE batches SET state = ?, settled_at_ms = ? WHERE epoch = ? AND seq <= ? AND state != ?",
            (ARCHIVED, now_ms, receipt.epoch, receipt.committed_through, ARCHIVED),
        ).rowcount
        db.execute(
            "UPDATE epochs SET receipted_through = MAX(receipted_through, ?) WHERE epoch = ?",
            (receipt.committed_through, receipt.epoch),
        )
    return moved


def settle_one(spool: Spool, epoch: str, seq: int, *, now_ms: int) -> None:
    """A single batch was found in the ledger, byte for byte."""
    spool.db.execute(
        "UPDATE batches SET state = ?, settled_at_ms = ? WHERE epoch = ? AND seq = ?", (ARCHIVED, now_ms, epoch, seq)
    )


def _is_ours(db: sqlite3.Connection, epoch: str, seq: int, digest: str) -> bool:
    row = db.execute("SELECT digest FROM batches WHERE epoch = ? AND seq = ?", (epoch, seq)).fetchone()
    if row is None:
        row = db.execute(
            "SELECT sealed_digest FROM epochs WHERE epoch = ? AND sealed_through = ?", (epoch, seq)
        ).fetchone()
    return row is not None and row[0] == digest


def accept_fork(spool: Spool, fork: Fork) -> bool:
    """Opens the rows of a batch whose number another body took, to be sealed again; False when it is not ours."""
    row = spool.db.execute(
        "SELECT digest FROM batches WHERE epoch = ? AND seq = ? AND state != ?", (fork.epoch, fork.seq, ARCHIVED)
    ).fetchone()
    if row is None or row[0] != fork.refused_digest or fork.committed_digest == fork.refused_digest:
        return False
    reopen(spool, fork.epoch, fork.seq)
    return True


def reopen(spool: Spool, epoch: str, seq: int) -> None:
    """Turns a sealed batch back into open rows of its start; its number stays used."""
    row = spool.db.execute("SELECT payload FROM batches WHERE epoch = ? AND seq = ?", (epoch, seq)).fetchone()
    batch = codec.decode(row[0], Batch)
    with transaction(spool.db) as db:
        start_id = batch.start_id
        db.execute(
            "INSERT INTO starts VALUES (?, ?, ?, 0) ON CONFLICT (start_id) DO UPDATE SET"
            " from_at_ms = MIN(from_at_ms, excluded.from_at_ms), to_at_ms = MAX(to_at_ms, excluded.to_at_ms)",
            (start_id, batch.from_at_ms, batch.to_at_ms),
        )
        add_open_rows(db, [(start_id, *each) for each in wire_to_rows(batch)])
        for gap in batch.gaps:
            insert_gap(db, gap)
        db.execute("DELETE FROM batches WHERE epoch = ? AND seq = ?", (epoch, seq))


def resend_above(spool: Spool, mark: EpochMark, *, now_ms: int) -> tuple[int, int]:
    """What was receipted but is no longer in the ledger goes out again from the archive.

    Returns (batches to send again, batches no longer kept); the latter become a declared gap.
    """
    row = spool.db.execute("SELECT receipted_through FROM epochs WHERE epoch = ?", (mark.epoch,)).fetchone()
    if row is None or row[0] <= mark.through:
        return 0, 0
    with transaction(spool.db) as db:
        kept = db.execute(
            "UPDATE batches SET state = ?, published = 0, tries = 0 WHERE epoch = ? AND seq > ? AND state = ?",
            (RESEND, mark.epoch, mark.through, ARCHIVED),
        ).rowcount
        present = {
            seq
            for (seq,) in db.execute("SELECT seq FROM batches WHERE epoch = ? AND seq > ?", (mark.epoch, mark.through))
        }
        lost = [seq for seq in range(mark.through + 1, row[0] + 1) if seq not in present]
        _fill_holes(spool, mark.epoch, lost, now_ms)
        db.execute("UPDATE epochs SET receipted_through = ? WHERE epoch = ?", (mark.through, mark.epoch))
    return kept, len(lost)


def _fill_holes(spool: Spool, epoch: str, lost: list[int], now_ms: int) -> None:
    """Gives numbers whose bodies nobody has any more an empty batch, so that the epoch's floor can pass them.

    The first one carries the gap; its length is what the archive keeps at most.
    """
    ordinal = spool.db.execute("SELECT ordinal FROM epochs WHERE epoch = ?", (epoch,)).fetchone()[0]
    gap = Gap(from_at_ms=now_ms - ARCHIVE_KEPT_MS, to_at_ms=now_ms, reason="archive_lost")
    for seq in lost:
        batch = Batch(
            epoch=epoch, seq=seq, instance="", start_id="", from_at_ms=now_ms, to_at_ms=now_ms,
            gaps=(gap,) if seq == lost[0] else (),
        )  # fmt: skip
        payload = codec.encode(batch)
        spool.db.execute(
            "INSERT INTO batches (ordinal, epoch, seq, digest, start_id, payload, state, sealed_at_ms)"
            " VALUES (?, ?, ?, ?, '', ?, ?, ?)",
            (ordinal, epoch, seq, codec.sha256_hex(payload), payload, RESEND, now_ms),
        )


def promote_resends(spool: Spool) -> int:
    """Lets batches to be sent again take the free places among the waiting ones, oldest first."""
    room = MAX_SEALED_WAITING - spool.waiting_count()
    if room <= 0:
        return 0
    return spool.db.execute(
        "UPDATE batches SET state = ? WHERE rowid IN"
        " (SELECT rowid FROM batches WHERE state = ? ORDER BY ordinal, seq LIMIT ?)",
        (WAITING, RESEND, room),
    ).rowcount


def oldest_unreceipted(spool: Spool) -> tuple[int, int] | None:
    """(sealed at, tries) of the oldest batch that is published and has no receipt yet."""
    row = spool.db.execute(
        "SELECT MIN(sealed_at_ms), MAX(tries) FROM batches WHERE state = ? AND published = 1", (WAITING,)
    ).fetchone()
    return None if row is None or row[0] is None else (row[0], row[1])


def list_known(spool: Spool, starts: tuple[str, ...]) -> tuple[EpochMark, ...]:
    """Per epoch how far we sealed: the newest that concern these starts or of which batches are kept, oldest first."""
    rows = spool.db.execute(
        "SELECT epoch, sealed_through FROM epochs WHERE sealed_through > 0 AND ("
        " epoch IN (SELECT epoch FROM batches)"
        " OR epoch IN (SELECT epoch FROM epoch_starts WHERE start_id IN (SELECT value FROM json_each(?))))"
        " ORDER BY epoch IN (SELECT epoch FROM batches WHERE state != ?) DESC, ordinal DESC LIMIT ?",
        (json.dumps(starts), ARCHIVED, MAX_KNOWN_EPOCHS),
    ).fetchall()
    return tuple(EpochMark(epoch=row[0], through=row[1]) for row in reversed(rows))


def is_sealed_here(spool: Spool, name: BatchName) -> bool:
    """Whether this is a batch of our own, however long ago."""
    row = spool.db.execute("SELECT sealed_through FROM epochs WHERE epoch = ?", (name.epoch,)).fetchone()
    return row is not None and name.seq <= row[0]


def prune(spool: Spool, *, now_ms: int, cap_bytes: int = ARCHIVE_BYTES) -> int:
    """Drops archived batches that are too old or too many, and epochs nobody can ask about any more."""
    with transaction(spool.db) as db:
        dropped = db.execute(
            "DELETE FROM batches WHERE state = ? AND settled_at_ms < ?", (ARCHIVED, now_ms - ARCHIVE_KEPT_MS)
        ).rowcount
        size = int(db.execute("SELECT COALESCE(SUM(LENGTH(payload)), 0) FROM batches").fetchone()[0])
        if size > cap_bytes:
            dropped += _drop_oldest(db, size - cap_bytes)
        db.execute(
            "DELETE FROM epoch_starts WHERE start_id NOT IN (SELECT start_id FROM starts)"
            " AND start_id NOT IN (SELECT start_id FROM batches)"
        )
        db.execute(
            "DELETE FROM epochs WHERE epoch != ? AND epoch NOT IN (SELECT epoch FROM batches)"
            " AND epoch NOT IN (SELECT epoch FROM epoch_starts)",
            (spool.epoch,),
        )
    return dropped


def _drop_oldest(db: sqlite3.Connection, surplus_bytes: int) -> int:
    rows = db.execute(
        "SELECT rowid, LENGTH(payload) FROM batches WHERE state = ? ORDER BY ordinal, seq", (ARCHIVED,)
    ).fetchall()
    doomed: list[tuple[int]] = []
    for rowid, size in rows:
        if surplus_bytes <= 0:
            break
        doomed.append((rowid,))
        surplus_bytes -= size
    db.executemany("DELETE FROM batches WHERE rowid = ?", doomed)
    return len(doomed)
