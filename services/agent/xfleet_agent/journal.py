"""Journal of commands: which ids were begun and what was answered, kept over restarts until nobody asks again."""

import sqlite3

import msgspec


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One remembered command."""

    digest: str
    instance: str
    reply: bytes | None
    """None: begun, and not ended by the process that began it."""


class Journal:
    """The `commands` table of the state's file."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def find(self, command_id: str) -> Entry | None:
        """What is known of this id."""
        row = self._db.execute("SELECT digest, instance, reply FROM commands WHERE id = ?", (command_id,)).fetchone()
        return Entry(digest=row[0], instance=row[1], reply=row[2]) if row else None

    def begin(self, command_id: str, verb: str, digest: str, instance: str, forget_at_ms: int) -> None:
        """Notes that it is being carried out, durable before it is."""
        self._db.execute(
            "INSERT INTO commands VALUES (?, ?, ?, NULL, ?, ?) ON CONFLICT (id) DO UPDATE SET"
            " instance = excluded.instance, forget_at_ms = MAX(forget_at_ms, excluded.forget_at_ms)",
            (command_id, verb, digest, instance, forget_at_ms),
        )

    def end(self, command_id: str, reply: bytes) -> None:
        """Notes the answer."""
        self._db.execute("UPDATE commands SET reply = ? WHERE id = ?", (reply, command_id))

    def prune(self, now_ms: int) -> None:
        """Forgets what nobody may ask about any more."""
        self._db.execute("DELETE FROM commands WHERE forget_at_ms < ?", (now_ms,))
