"""The database: one door for reading, one for writing, the same on SQLite and PostgreSQL.

One request, message or job is one transaction, committed at the edge. On SQLite all writers of the one controller
process queue for one lock and begin immediately, so that nobody meets a busy database half way.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from xfleet_controller.config import ControllerSettings
from xfleet_migrations import runner
from xfleet_runtime.errors import Unusable

SQLITE_BUSY_TIMEOUT_MS = 10_000
DRIVERS = frozenset({"sqlite+aiosqlite", "postgresql+psycopg", "postgresql"})
OUTBOX_TOPICS = "xfleet_outbox_topics"
"""Key in `session.info` under which a transaction notes the topics of the outbox rows it wrote."""


class Database:
    """The controller's database; `read()` and `write()` hand out sessions."""

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._url = make_url(url)
        except ArgumentError as error:
            raise Unusable(f"The database URL cannot be read: {error}. Try sqlite+aiosqlite:///FILE.") from error
        if self._url.drivername not in DRIVERS:
            known = " or ".join(sorted(DRIVERS))
            raise Unusable(f"The database {self._url.drivername} is not supported. The URL begins with {known}.")
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        self.after_commit: list[Callable[[frozenset[str]], None]] = []
        """Called after a commit with the topics whose outbox rows it left."""
        self._writers = asyncio.Lock() if self.is_sqlite else nullcontext()
        self.engine = self._sqlite_engine() if self.is_sqlite else self._postgres_engine()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session for looking; what it changed is rolled back."""
        async with AsyncSession(self.engine, expire_on_commit=False) as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A session whose transaction commits at the end, or rolls back on any exception."""
        async with self._writers, AsyncSession(self.engine, expire_on_commit=False) as session, session.begin():
            if self.is_sqlite:
                await session.connection(execution_options={"xfleet_immediate": True})
            yield session
        topics = frozenset(session.info.get(OUTBOX_TOPICS, ()))
        if topics:
            for callback in self.after_commit:
                callback(topics)

    async def migrate(self) -> None:
        """Brings the tables to this release's form; a SQLite file with content is copied aside first.

        Raises `Unusable` when the database cannot be reached or comes from a newer release.
        """
        try:
            if self.is_sqlite:
                await self._copy_before_migration()
            async with self.engine.begin() as connection:
                await connection.run_sync(_upgrade)
        except (DBAPIError, OSError) as error:
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise Unusable(f"Cannot use the database {self._url.render_as_string()}: {reason}.") from error

    async def check_form(self, *, newest: bool) -> None:
        """Raises `Unusable` unless the database answers and has the tables of a known release; changes nothing.

        With `newest` they have to be those of this release.
        """
        try:
            async with self.engine.connect() as connection:
                revision = await connection.run_sync(runner.current_revision)
        except (DBAPIError, OSError) as error:
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise Unusable(f"Cannot use the database {self._url.render_as_string()}: {reason}.") from error
        if revision is None:
            raise Unusable("The database is empty: nothing was set up in it yet.")
        if not runner.is_known(revision):
            raise Unusable(f"The database is of a newer release (revision {revision}). Install that release again.")
        if newest and revision != runner.newest_revision():
            raise Unusable("The database is of an older release. Start this release once, it brings it up to date.")

    async def close(self) -> None:
        """Ends all connections."""
        await self.engine.dispose()

    def _postgres_engine(self) -> AsyncEngine:
        return create_async_engine(self._url, pool_size=10, max_overflow=10, pool_pre_ping=True, hide_parameters=True)

    def _sqlite_engine(self) -> AsyncEngine:
        if self._url.database:
            Path(self._url.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        engine = create_async_engine(
            self._url, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_MS / 1000}, hide_parameters=True
        )
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine

    async def _copy_before_migration(self) -> None:
        path = Path(self._url.database or "")
        if not path.is_file() or path.stat().st_size == 0:
            return
        async with self.engine.connect() as connection:
            revision = await connection.run_sync(runner.current_revision)
            if revision in (None, runner.newest_revision()):
                return
            await connection.rollback()
            raw = await connection.get_raw_connection()
            await raw.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # type: ignore[union-attr]
        shutil.copy2(path, path.with_name(f"{path.name}.before-{runner.newest_revision()}"))


def _upgrade(connection: Connection) -> None:
    found = runner.current_revision(connection)
    if found is not None and not runner.is_known(found):
        raise Unusable(f"The database is of a newer release (revision {found}). Install that release again.")
    runner.upgrade(connection)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={SQLITE_BUSY_TIMEOUT_MS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("xfleet_immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def require_database(settings: ControllerSettings) -> None:
    """Raises `Unusable` where the SQLite file is missing: opening it would make an empty one."""
    url = make_url(settings.database)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise Unusable(f"There is no fleet in {settings.data_dir}. Give --data-dir, or start xfleet once.")


async def is_reachable(database: Database) -> bool:
    """Whether the database answers."""
    try:
        async with database.read() as session:
            await session.execute(text("SELECT 1"))
    except (DBAPIError, OSError):
        return False
    return True
