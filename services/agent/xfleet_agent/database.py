"""SQLite as the agent uses it: WAL, every commit durable on disk, explicit transactions, one worker thread."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from xfleet_runtime.errors import Unusable
from xfleet_runtime.log import get_logger

P = ParamSpec("P")
T = TypeVar("T")

BUSY_TIMEOUT_S = 5.0

_log = get_logger(__name__)


def open_database(path: Path, schema: str, *, version: int) -> sqlite3.Connection:
    """The database with this schema, made when missing.

    Raises `Unusable` for one that a newer agent made, `sqlite3.DatabaseError` for a damaged one.
    """
    path.touch(mode=0o600, exist_ok=True)
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA cache_size=-2048")
        found: int = db.execute("PRAGMA user_version").fetchone()[0]
        if found > version:
            raise Unusable(f"{path} was made by a newer agent (schema {found}, this one knows {version}). Upgrade it.")
        if found < version:
            db.executescript(f"BEGIN IMMEDIATE;\n{schema}\nPRAGMA user_version={version};\nCOMMIT;")
    except BaseException:
        db.close()
        raise
    return db


def open_or_replace(path: Path, schema: str, *, version: int) -> tuple[sqlite3.Connection, Path | None]:
    """As `open_database`, but a damaged file is set aside; its new path comes back as the second value."""
    try:
        db = open_database(path, schema, version=version)
        verdict: str = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict == "ok":
            return db, None
        db.close()
        reason = verdict
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
            raise
        reason = str(error)
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns() // 1_000_000}")
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    _log.error("a damaged database was set aside", path=str(path), aside=str(aside), reason=reason)
    return open_database(path, schema, version=version), aside


@contextmanager
def transaction(db: sqlite3.Connection) -> Generator[sqlite3.Connection]:
    """All or nothing; durable when the block is left."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


class Worker:
    """The one thread on which databases are touched, so that a slow disk never stops the event loop."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="agent-disk")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result; calls are carried out in the order they were made, even if the caller is gone."""
        future = self._pool.submit(function, *args, **kwargs)
        return await asyncio.shield(asyncio.wrap_future(future))

    def close(self) -> None:
        """Waits for what was handed in."""
        self._pool.shutdown(wait=True)
