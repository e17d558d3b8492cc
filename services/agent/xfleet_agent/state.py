"""What the agent must still know after it was killed: wanted, applied and good state, cuts, refusals, commands, Xray.

Entities are kept byte for byte as they were received. `wanted` is what the controller sent last, `applied` what Xray
runs, `good` the configuration (without clients) that ran through its probation.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, cast

import msgspec

from xfleet_agent.database import open_or_replace, transaction
from xfleet_agent.digests import DigestIndex
from xfleet_contracts.apply import Degraded
from xfleet_contracts.desired_state import EMPTY_DIGEST, EntityKey, Kind, StatePoint

VERSION = 1
Slot = Literal["wanted", "applied", "good"]
Entities = dict[EntityKey, bytes]

_SCHEMA = """
CREATE TABLE entities (slot TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (slot, kind, id)) WITHOUT ROWID;
CREATE TABLE points (slot TEXT PRIMARY KEY, revision INTEGER NOT NULL, digest TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE refusals (kind TEXT NOT NULL, id TEXT NOT NULL, digest TEXT NOT NULL, path TEXT NOT NULL,
    code TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID;
CREATE TABLE cuts (client INTEGER NOT NULL, reason TEXT NOT NULL, mark INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    PRIMARY KEY (client, reason)) WITHOUT ROWID;
CREATE TABLE commands (id TEXT PRIMARY KEY, verb TEXT NOT NULL, digest TEXT NOT NULL, reply BLOB,
    instance TEXT NOT NULL, forget_at_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A version of an entity that was refused; it is not tried again until its bytes change."""

    key: EntityKey
    digest: str
    path: str
    code: str
    reason: str

    def degraded(self, *, kept: bool) -> Degraded:
        """As the controller is told."""
        return Degraded(
            key=self.key, path=self.path, code=self.code, reason=self.reason, kept="previous" if kept else "absent"
        )


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """A client disconnected by the agent's own decision."""

    client: int
    reason: Literal["expired", "allowance"]
    mark: int
    """What it came from: the moment of expiry in ms, or the allowance's serial."""


class StateStore:
    """The state's file; what is read often is kept in memory. Methods run on the disk's worker thread."""

    def __init__(self, path: Path) -> None:
        self.db, self.damaged = open_or_replace(path, _SCHEMA, version=VERSION)
        self._facts: dict[str, str] = dict(self.db.execute("SELECT name, value FROM facts"))
        self.wanted: Entities = self._load("wanted")
        self.applied: Entities = {
            key: self.wanted[key] if self.wanted.get(key) == body else body
            for key, body in self._load("applied").items()
        }
        self._digests: DigestIndex | None = None
        self.wanted_point = self._point("wanted")
        self.applied_point = self._point("applied")
        self.refusals: dict[EntityKey, Refused] = self._load_refusals()
        self.cuts: dict[tuple[int, str], Cut] = {
            (row[0], row[1]): Cut(client=row[0], reason=row[1], mark=row[2])
            for row in self.db.execute("SELECT client, reason, mark FROM cuts")
        }

    def close(self) -> None:
        """Closes the file."""
        self.db.close()

    # Slots

    def load_good(self) -> Entities:
        """The configuration that ran through its probation."""
        return self._load("good")

    def save_wanted(self, point: StatePoint, entities: Entities) -> None:
        """Makes this the wanted state, durably."""
        with transaction(self.db):
            self._write_slot("wanted", self.wanted, entities)
            self._write_point("wanted", point)
        self.wanted, self.wanted_point = entities, point
        self._digests = None

    def change_wanted(self, target: StatePoint, put: Entities, remove: Iterable[EntityKey]) -> bool:
        """Applies a difference to the wanted state, durably; False when it does not add up to the target's digest."""
        if self._digests is None:
            self._digests = DigestIndex(self.wanted)
        gone = [key for key in remove if key not in put]
        digests = self._digests.changed(put, gone)
        if digests.hexdigest() != target.digest:
            return False
        with transaction(self.db):
            self._change_slot("wanted", put, gone)
            self._write_point("wanted", target)
        wanted = dict(self.wanted)
        for key in gone:
            wanted.pop(key, None)
        wanted |= put
        self.wanted, self.wanted_point, self._digests = wanted, target, digests
        return True

    def save_applied(self, point: StatePoint, entities: Entities) -> None:
        """Notes what Xray runs now."""
        with transaction(self.db):
            self._write_slot("applied", self.applied, entities)
            self._write_point("applied", point)
        self.applied, self.applied_point = entities, point

    def change_applied(self, point: StatePoint, put: Entities, remove: Iterable[EntityKey]) -> None:
        """As `save_applied`, by what changed."""
        gone = list(remove)
        with transaction(self.db):
            self._change_slot("applied", put, gone)
            self._write_point("applied", point)
        for key in gone:
            self.applied.pop(key, None)
        self.applied.update(put)
        self.applied_point = point

    def save_good(self, entities: Entities) -> None:
        """Notes the configuration that has proven itself."""
        with transaction(self.db):
            self._write_slot("good", self._load("good"), entities)

    def _load(self, slot: Slot) -> Entities:
        rows = self.db.execute("SELECT kind, id, body FROM entities WHERE slot = ?", (slot,))
        return {EntityKey(kind=cast("Kind", kind), id=id_): body for kind, id_, body in rows}

    def _point(self, slot: Slot) -> StatePoint:
        row = self.db.execute("SELECT revision, digest FROM points WHERE slot = ?", (slot,)).fetchone()
        return StatePoint(revision=row[0], digest=row[1]) if row else StatePoint(revision=0, digest=EMPTY_DIGEST)

    def _write_slot(self, slot: Slot, old: Mapping[EntityKey, bytes], new: Mapping[EntityKey, bytes]) -> None:
        put = {key: body for key, body in new.items() if old.get(key) != body}
        self._change_slot(slot, put, [key for key in old if key not in new])

    def _change_slot(self, slot: Slot, put: Mapping[EntityKey, bytes], remove: Iterable[EntityKey]) -> None:
        self.db.executemany(
            "DELETE FROM entities WHERE slot = ? AND kind = ? AND id = ?",
            [(slot, key.kind, key.id) for key in remove],
        )
        self.db.executemany(
            "INSERT OR REPLACE INTO entities VALUES (?, ?, ?, ?)",
            [(slot, key.kind, key.id, body) for key, body in put.items()],
        )

    def _write_point(self, slot: Slot, point: StatePoint) -> None:
        self.db.execute("INSERT OR REPLACE INTO points VALUES (?, ?, ?)", (slot, point.revision, point.digest))

    # Refusals

    def save_refusals(self, refusals: Iterable[Refused]) -> None:
        """Replaces all refusals."""
        kept = {each.key: each for each in refusals}
        if kept == self.refusals:
            return
        with transaction(self.db) as db:
            db.execute("DELETE FROM refusals")
            db.executemany(
                "INSERT INTO refusals VALUES (?, ?, ?, ?, ?, ?)",
                [(r.key.kind, r.key.id, r.digest, r.path, r.code, r.reason) for r in kept.values()],
            )
        self.refusals = kept

    def _load_refusals(self) -> dict[EntityKey, Refused]:
        rows = self.db.execute("SELECT kind, id, digest, path, code, reason FROM refusals")
        found = (
            Refused(key=EntityKey(kind=cast("Kind", r[0]), id=r[1]), digest=r[2], path=r[3], code=r[4], reason=r[5])
            for r in rows
        )
        return {each.key: each for each in found}

    # Cuts

    def save_cuts(self, add: Iterable[Cut], lift: Iterable[tuple[int, str]], *, now_ms: int) -> None:
        """Adds and lifts cuts, durably before anybody is disconnected or let in again."""
        added, lifted = list(add), list(lift)
        with transaction(self.db) as db:
            db.executemany("DELETE FROM cuts WHERE client = ? AND reason = ?", lifted)
            db.executemany(
                "INSERT OR REPLACE INTO cuts VALUES (?, ?, ?, ?)", [(c.client, c.reason, c.mark, now_ms) for c in added]
            )
        for name in lifted:
            self.cuts.pop(name, None)
        self.cuts.update({(cut.client, cut.reason): cut for cut in added})

    # Facts

    def fact(self, name: str, default: str = "") -> str:
        """A single value kept under a name."""
        return self._facts.get(name, default)

    def save_facts(self, **facts: str) -> None:
        """Keeps values under names."""
        with transaction(self.db) as db:
            db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", list(facts.items()))
        self._facts.update(facts)
