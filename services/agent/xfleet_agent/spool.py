"""Spool: bytes that were read from Xray and are not yet proven to be in the ledger.

Rows are *open* (merged per Xray start, counter and UTC hour) until they are *sealed* into numbered batches of this
process's epoch. A reading moves the high-water marks and the open rows in one transaction, sealing moves rows into a
batch in one transaction: whatever dies in between, every byte is in exactly one place.
"""

import sqlite3
from collections.abc import Mapping
from pathlib import Path

import msgspec

from xfleet_agent.database import open_or_replace, transaction
from xfleet_contracts import codec
from xfleet_contracts.heartbeat import SpoolState
from xfleet_contracts.traffic import (
    MAX_BATCH_BYTES,
    MAX_BATCH_ROWS,
    MAX_SEALED_WAITING,
    Batch,
    ClientRow,
    Gap,
    TagRow,
)
from xfleet_runtime.ids import new_epoch

HOUR_MS = 3_600_000
VERSION = 1
WAITING, RESEND, ARCHIVED = 0, 1, 2
"""States of a batch: waits for its receipt, is to be sent again from the archive, receipted."""

_SCHEMA = """
CREATE TABLE starts (start_id TEXT PRIMARY KEY, from_at_ms INTEGER NOT NULL, to_at_ms INTEGER NOT NULL,
    alive INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE aliases (process_id TEXT PRIMARY KEY, start_id TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE marks (start_id TEXT NOT NULL, counter TEXT NOT NULL, up INTEGER NOT NULL, down INTEGER NOT NULL,
    PRIMARY KEY (start_id, counter)) WITHOUT ROWID;
CREATE TABLE open_rows (start_id TEXT NOT NULL, counter TEXT NOT NULL, hour INTEGER NOT NULL, up INTEGER NOT NULL,
    down INTEGER NOT NULL, PRIMARY KEY (start_id, counter, hour)) WITHOUT ROWID;
CREATE TABLE debts (start_id TEXT NOT NULL, counter TEXT NOT NULL, up INTEGER NOT NULL, down INTEGER NOT NULL,
    PRIMARY KEY (start_id, counter)) WITHOUT ROWID;
CREATE TABLE open_gaps (id INTEGER PRIMARY KEY, start_id TEXT NOT NULL, from_at_ms INTEGER NOT NULL,
    to_at_ms INTEGER NOT NULL, reason TEXT NOT NULL);
CREATE TABLE epochs (ordinal INTEGER PRIMARY KEY, epoch TEXT NOT NULL UNIQUE, sealed_through INTEGER NOT NULL DEFAULT 0,
    sealed_digest TEXT NOT NULL DEFAULT '', receipted_through INTEGER NOT NULL DEFAULT 0);
CREATE TABLE epoch_starts (epoch TEXT NOT NULL, start_id TEXT NOT NULL, PRIMARY KEY (epoch, start_id)) WITHOUT ROWID;
CREATE TABLE batches (ordinal INTEGER NOT NULL, epoch TEXT NOT NULL, seq INTEGER NOT NULL, digest TEXT NOT NULL,
    start_id TEXT NOT NULL, payload BLOB NOT NULL, state INTEGER NOT NULL, sealed_at_ms INTEGER NOT NULL,
    published INTEGER NOT NULL DEFAULT 0, tries INTEGER NOT NULL DEFAULT 0, settled_at_ms INTEGER NOT NULL DEFAULT 0,
    UNIQUE (epoch, seq));
CREATE INDEX ix_batches_state ON batches (state, ordinal, seq);
CREATE TABLE settled_foreign (epoch TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (epoch, seq)) WITHOUT ROWID;
CREATE TABLE client_totals (client INTEGER PRIMARY KEY, bytes INTEGER NOT NULL);
CREATE TABLE allowances (client INTEGER PRIMARY KEY, serial INTEGER NOT NULL, limit_bytes INTEGER);
"""

Counters = Mapping[str, tuple[int, int]]
"""Counter name (`c:<client>.<inbound>`, `i:<inbound>`, `o:<outbound tag>`) to bytes (up, down) since Xray's start."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What one reading did."""

    moved: dict[int, int]
    """Client to bytes, for clients that moved."""
    changed_count: int = 0
    """Counters that moved; 0 twice in a row means the streams have ended."""
    backwards: tuple[str, ...] = ()
    """Counters below their mark, of which nothing was taken."""


class Spool:
    """The spool's file. Every method is synchronous and runs on the disk's worker thread."""

    def __init__(self, path: Path, *, now_ms: int) -> None:
        self.db, self.damaged = open_or_replace(path, _SCHEMA, version=VERSION)
        self._marks: dict[str, dict[str, tuple[int, int]]] = {}
        self._debts: dict[str, dict[str, tuple[int, int]]] = {}
        self._aliases: dict[str, str] = dict(self.db.execute("SELECT process_id, start_id FROM aliases"))
        self.epoch = ""
        """Under which this process seals; known to the file from its first batch on."""
        self.begin_epoch()
        if self.damaged is not None:
            modified_ms = int(self.damaged.stat().st_mtime * 1000)
            self.add_gap(
                Gap(from_at_ms=min(modified_ms, now_ms), to_at_ms=now_ms, reason="spool_lost"),
            )

    def close(self) -> None:
        """Closes the file."""
        self.db.close()

    # Epochs and Xray starts

    def begin_epoch(self) -> str:
        """A new epoch; nothing is sealed under the old one any more."""
        self.epoch = new_epoch()
        return self.epoch

    def start_of(self, process_id: str) -> str:
        """The start id under which the ledger knows this Xray process."""
        return self._aliases.get(process_id, process_id)

    def begin_start(self, process_id: str, at_ms: int) -> str:
        """Makes a new or adopted Xray process known; returns its start id."""
        start_id = self.start_of(process_id)
        self.db.execute(
            "INSERT INTO starts VALUES (?, ?, ?, 1) ON CONFLICT (start_id) DO UPDATE SET alive = 1",
            (start_id, at_ms, at_ms),
        )
        return start_id

    def end_start(self, process_id: str) -> None:
        """Forgets the marks of an Xray process that is gone; its open rows stay."""
        start_id = self.start_of(process_id)
        with transaction(self.db) as db:
            db.execute("DELETE FROM marks WHERE start_id = ?", (start_id,))
            db.execute("DELETE FROM debts WHERE start_id = ?", (start_id,))
            db.execute("UPDATE starts SET alive = 0 WHERE start_id = ?", (start_id,))
            db.execute("DELETE FROM aliases WHERE process_id = ?", (process_id,))
            self._drop_empty_starts(db)
        self._aliases.pop(process_id, None)
        self._marks.pop(start_id, None)
        self._debts.pop(start_id, None)

    def end_starts_except(self, process_ids: tuple[str, ...]) -> None:
        """Ends every start whose Xray process is none of these."""
        alive = {self.start_of(process_id) for process_id in process_ids}
        known = {row[0]: row[0] for row in self.db.execute("SELECT start_id FROM starts WHERE alive = 1")}
        known |= {start_id: process_id for process_id, start_id in self._aliases.items()}
        for start_id, process_id in known.items():
            if start_id not in alive:
                self.end_start(process_id)

    def last_read_ms(self, process_id: str) -> int | None:
        """When this Xray process was last read."""
        row = self.db.execute("SELECT to_at_ms FROM starts WHERE start_id = ?", (self.start_of(process_id),)).fetchone()
        return row[0] if row else None

    def rename_start(self, process_id: str, new_start: str) -> None:
        """Continues an Xray process under a new start id, with marks and open rows.

        After a machine was copied with its memory, both copies drive "the same" start with diverging counters.
        """
        old = self.start_of(process_id)
        with transaction(self.db) as db:
            for table in ("starts", "marks", "open_rows", "debts", "open_gaps"):
                db.execute(f"UPDATE {table} SET start_id = ? WHERE start_id = ?", (new_start, old))  # noqa: S608
            db.execute("INSERT OR REPLACE INTO aliases VALUES (?, ?)", (process_id, new_start))
        self._aliases[process_id] = new_start
        self._marks.clear()
        self._debts.clear()

    # Readings

    def add_reading(self, process_id: str, at_ms: int, counters: Counters) -> Reading:
        """Takes what the counters moved since the last reading; durable before it returns."""
        start_id = self.start_of(process_id)
        marks = self._loaded(self._marks, "marks", start_id)
        debts = self._loaded(self._debts, "debts", start_id)
        moved: dict[int, int] = {}
        backwards: list[str] = []
        new_marks: dict[str, tuple[int, int]] = {}
        rows: list[tuple[str, str, int, int, int]] = []
        paid: dict[str, tuple[int, int]] = {}
        hour = at_ms // HOUR_MS
        for name, (up, down) in counters.items():
            mark_up, mark_down = marks.get(name, (0, 0))
            if up < mark_up or down < mark_down:
                backwards.append(name)
                continue
            if up == mark_up and down == mark_down:
                continue
            new_marks[name] = (up, down)
            more_up, more_down = up - mark_up, down - mark_down
            if name.startswith("c:"):
                client = int(name[2:].partition(".")[0])
                moved[client] = moved.get(client, 0) + more_up + more_down
            if name in debts:
                owed_up, owed_down = debts[name]
                pay_up, pay_down = min(owed_up, more_up), min(owed_down, more_down)
                more_up, more_down = more_up - pay_up, more_down - pay_down
                paid[name] = (owed_up - pay_up, owed_down - pay_down)
            if more_up or more_down:
                rows.append((start_id, name, hour, more_up, more_down))
        with transaction(self.db) as db:
            self._write_reading(db, start_id, at_ms, new_marks, rows, moved)
            _write_debts(db, start_id, paid)
        marks.update(new_marks)
        for name, owed in paid.items():
            debts[name] = owed
            if owed == (0, 0):
                del debts[name]
        return Reading(moved=moved, changed_count=len(new_marks), backwards=tuple(backwards))

    @staticmethod
    def _write_reading(
        db: sqlite3.Connection,
        start_id: str,
        at_ms: int,
        marks: dict[str, tuple[int, int]],
        rows: list[tuple[str, str, int, int, int]],
        moved: dict[int, int],
    ) -> None:
        db.execute(
            "INSERT INTO starts VALUES (?, ?, ?, 1)"
            " ON CONFLICT (start_id) DO UPDATE SET to_at_ms = MAX(to_at_ms, excluded.to_at_ms), alive = 1",
            (start_id, at_ms, at_ms),
        )
        db.executemany(
            "INSERT INTO marks VALUES (?, ?, ?, ?)"
            " ON CONFLICT (start_id, counter) DO UPDATE SET up = excluded.up, down = excluded.down",
            ((start_id, name, up, down) for name, (up, down) in marks.items()),
        )
        add_open_rows(db, rows)
        db.executemany(
            "INSERT INTO client_totals VALUES (?, ?) ON CONFLICT (client) DO UPDATE SET bytes = bytes + excluded.bytes",
            moved.items(),
        )

    def add_gap(self, gap: Gap) -> None:
        """Declares time whose bytes nobody can know."""
        with transaction(self.db) as db:
            insert_gap(db, gap)

    def _loaded(
        self, cache: dict[str, dict[str, tuple[int, int]]], table: str, start_id: str
    ) -> dict[str, tuple[int, int]]:
        if start_id not in cache:
            rows = self.db.execute(f"SELECT counter, up, down FROM {table} WHERE start_id = ?", (start_id,))  # noqa: S608
            cache[start_id] = {name: (up, down) for name, up, down in rows}
        return cache[start_id]

    def forget_caches(self) -> None:
        """Reads marks and debts from disk again; called after somebody else changed them or a write failed."""
        self._marks.clear()
        self._debts.clear()

    # Sealing

    def seal(self, *, now_ms: int, instance: str, held: frozenset[str] = frozenset()) -> int:
        """Seals open rows while there is room among the waiting batches; returns how many batches were made.

        Rows of starts in `held` stay open.
        """
        made = 0
        room = MAX_SEALED_WAITING - self.waiting_count()
        while made < room and self._seal_one(now_ms, instance, held):
            made += 1
        return made

    def waiting_count(self) -> int:
        """Sealed batches without a receipt."""
        return int(self.db.execute("SELECT COUNT(*) FROM batches WHERE state = ?", (WAITING,)).fetchone()[0])

    def _seal_one(self, now_ms: int, instance: str, held: frozenset[str]) -> bool:
        start_id = self._next_start(held)
        if start_id is None:
            return False
        with transaction(self.db) as db:
            ordinal, through = self._epoch_row(db)
            rows_limit = MAX_BATCH_ROWS
            while True:
                batch, keys, gap_ids = self._draft(
                    db, start_id, (self.epoch, through + 1, instance), now_ms, rows_limit
                )
                payload = codec.encode(batch)
                if len(payload) <= MAX_BATCH_BYTES:
                    break
                rows_limit = max(1, min(len(keys) - 1, len(keys) * MAX_BATCH_BYTES // len(payload)))
            digest = codec.sha256_hex(payload)
            db.execute(
                "INSERT INTO batches (ordinal, epoch, seq, digest, start_id, payload, state, sealed_at_ms)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (ordinal, self.epoch, through + 1, digest, start_id, payload, WAITING, now_ms),
            )
            db.execute(
                "UPDATE epochs SET sealed_through = ?, sealed_digest = ? WHERE epoch = ?",
                (through + 1, digest, self.epoch),
            )
            db.execute("INSERT OR IGNORE INTO epoch_starts VALUES (?, ?)", (self.epoch, start_id))
            db.executemany("DELETE FROM open_rows WHERE start_id = ? AND counter = ? AND hour = ?", keys)
            db.executemany("DELETE FROM open_gaps WHERE id = ?", gap_ids)
            self._after_seal(db, start_id)
        return True

    def _next_start(self, held: frozenset[str]) -> str | None:
        rows = self.db.execute("SELECT DISTINCT start_id FROM open_rows UNION SELECT start_id FROM open_gaps")
        return next((start_id for (start_id,) in sorted(rows) if start_id not in held), None)

    def _epoch_row(self, db: sqlite3.Connection) -> tuple[int, int]:
        """(ordinal, sealed through) of this process's epoch."""
        db.execute("INSERT OR IGNORE INTO epochs (epoch) VALUES (?)", (self.epoch,))
        row = db.execute("SELECT ordinal, sealed_through FROM epochs WHERE epoch = ?", (self.epoch,)).fetchone()
        return int(row[0]), int(row[1])

    @staticmethod
    def _draft(
        db: sqlite3.Connection, start_id: str, name: tuple[str, int, str], now_ms: int, rows_limit: int
    ) -> tuple[Batch, list[tuple[str, str, int]], list[tuple[int]]]:
        """A batch of at most that many rows, with the keys of what is in it."""
        span = db.execute("SELECT from_at_ms, to_at_ms FROM starts WHERE start_id = ?", (start_id,)).fetchone()
        rows = db.execute(
            "SELECT counter, hour, up, down FROM open_rows WHERE start_id = ? ORDER BY hour, counter LIMIT ?",
            (start_id, rows_limit),
        ).fetchall()
        gaps = db.execute(
            "SELECT id, from_at_ms, to_at_ms, reason FROM open_gaps WHERE start_id = ? ORDER BY id LIMIT 100",
            (start_id,),
        ).fetchall()
        clients, tags = rows_to_wire(rows)
        from_at_ms, to_at_ms = span or (
            min((gap[1] for gap in gaps), default=now_ms),
            max((gap[2] for gap in gaps), default=now_ms),
        )
        batch = Batch(
            epoch=name[0], seq=name[1], instance=name[2], start_id=start_id, from_at_ms=from_at_ms, to_at_ms=to_at_ms,
            clients=clients, tags=tags,
            gaps=tuple(Gap(from_at_ms=g[1], to_at_ms=g[2], reason=g[3], start_id=start_id) for g in gaps),
        )  # fmt: skip
        return batch, [(start_id, row[0], row[1]) for row in rows], [(gap[0],) for gap in gaps]

    def _after_seal(self, db: sqlite3.Connection, start_id: str) -> None:
        left = db.execute("SELECT 1 FROM open_rows WHERE start_id = ? LIMIT 1", (start_id,)).fetchone()
        if left is None:
            db.execute("UPDATE starts SET from_at_ms = to_at_ms WHERE start_id = ?", (start_id,))
            self._drop_empty_starts(db)

    @staticmethod
    def _drop_empty_starts(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM starts WHERE alive = 0 AND start_id NOT IN (SELECT start_id FROM open_rows)")

    # Figures

    def figures(self) -> SpoolState:
        """What waits, for the heartbeat."""
        open_count = int(self.db.execute("SELECT COUNT(*) FROM open_rows").fetchone()[0])
        waiting, oldest = self.db.execute(
            "SELECT COUNT(*), MIN(sealed_at_ms) FROM batches WHERE state = ?", (WAITING,)
        ).fetchone()
        return SpoolState(open_rows_count=open_count, sealed_batches_count=waiting, oldest_at_ms=oldest or 0)

    def open_starts(self) -> tuple[str, ...]:
        """Starts of which open rows are held or whose Xray is driven now; the latter first."""
        alive = {row[0] for row in self.db.execute("SELECT start_id FROM starts WHERE alive = 1")}
        others = {row[0] for row in self.db.execute("SELECT DISTINCT start_id FROM open_rows")} - alive
        return (*sorted(alive), *sorted(others))


def add_open_rows(db: sqlite3.Connection, rows: list[tuple[str, str, int, int, int]]) -> None:
    """Adds (start id, counter, hour, up, down) to what is open."""
    db.executemany(
        "INSERT INTO open_rows VALUES (?, ?, ?, ?, ?) ON CONFLICT (start_id, counter, hour)"
        " DO UPDATE SET up = up + excluded.up, down = down + excluded.down",
        rows,
    )


def insert_gap(db: sqlite3.Connection, gap: Gap) -> None:
    """Adds a gap to what is open."""
    db.execute(
        "INSERT INTO open_gaps (start_id, from_at_ms, to_at_ms, reason) VALUES (?, ?, ?, ?)",
        (gap.start_id, gap.from_at_ms, gap.to_at_ms, gap.reason),
    )


def _write_debts(db: sqlite3.Connection, start_id: str, owed: Mapping[str, tuple[int, int]]) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO debts VALUES (?, ?, ?, ?)",
        ((start_id, name, up, down) for name, (up, down) in owed.items()),
    )
    db.execute("DELETE FROM debts WHERE up = 0 AND down = 0")


def rows_to_wire(
    rows: list[tuple[str, int, int, int]],
) -> tuple[tuple[ClientRow, ...], tuple[TagRow, ...]]:
    """Open rows (counter, hour, up, down) as the batch spells them."""
    clients: list[ClientRow] = []
    tags: list[TagRow] = []
    for name, hour, up, down in rows:
        kind, _, rest = name.partition(":")
        if kind == "c":
            client, _, inbound = rest.partition(".")
            clients.append(ClientRow(int(client), int(inbound), hour, up, down))
        else:
            tags.append(TagRow("inbound" if kind == "i" else "outbound", rest, hour, up, down))
    return tuple(clients), tuple(tags)


def wire_to_rows(batch: Batch) -> list[tuple[str, int, int, int]]:
    """The reverse of `rows_to_wire`."""
    rows = [(f"c:{r.client}.{r.inbound}", r.hour, r.up_bytes, r.down_bytes) for r in batch.clients]
    rows += [(f"{r.direction[0]}:{r.tag}", r.hour, r.up_bytes, r.down_bytes) for r in batch.tags]
    return rows
