"""The database as files: one consistent moment of it, taken while everything runs, and put into an empty one again.

SQLite gives a copy of itself (`VACUUM INTO`); PostgreSQL gives every table by COPY, all in one snapshot of REPEATABLE
READ. That needs no `pg_dump` of the right version, and both ways are the same program on every machine.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, MetaData, Table, create_engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from xfleet_migrations import runner
from xfleet_runtime.errors import Unusable

SQLITE_FILE = "xfleet.db"
VERSIONS_TABLE = "alembic_version"
COPY_BYTES = 1024 * 1024
BUSY_TIMEOUT_S = 30.0


def kind_of(url: str) -> str:
    """`sqlite` or `postgresql`."""
    return make_url(url).get_backend_name()


def sqlite_path(url: str) -> Path:
    """The file of a SQLite database."""
    return Path(make_url(url).database or "")


def take(url: str, directory: Path) -> dict[str, int]:
    """Writes the database into the directory; file names with their sizes. Raises `Unusable`, `OSError` on a full disk.

    Blocks: run it in a thread.
    """
    if kind_of(url) == "sqlite":
        _take_sqlite(sqlite_path(url), directory / SQLITE_FILE)
    else:
        with _reading(url) as connection:
            for table in _tables(connection):
                _copy_out(connection, table, directory / f"{table.name}.copy")
    return {path.name: path.stat().st_size for path in sorted(directory.iterdir())}


def revision_of(url: str) -> str | None:
    """The revision of a database's tables; None for an empty one. Raises `Unusable` when it cannot be asked."""
    with _engine(url) as engine:
        try:
            with engine.connect() as connection:
                return runner.current_revision(connection)
        except DBAPIError as error:
            raise Unusable(f"The database cannot be reached: {str(error.orig).strip().splitlines()[0]}.") from error


def check_sqlite(path: Path) -> None:
    """Raises `Unusable` when the file is not a whole SQLite database."""
    try:
        connection = sqlite3.connect(path)
        try:
            answer = connection.execute("PRAGMA quick_check(1)").fetchone()
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        raise Unusable(f"The database in the backup is damaged: {error}. Use another backup.") from error
    if answer != ("ok",):
        raise Unusable(f"The database in the backup is damaged: {answer[0]}. Use another backup.")


def settle(path: Path) -> None:
    """Puts everything into the SQLite file itself, so that it can be moved alone."""
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")
    finally:
        connection.close()


def refuse_used(url: str) -> None:
    """Raises `Unusable` unless the PostgreSQL database is reachable and holds no tables."""
    with _engine(url) as engine:
        try:
            with engine.connect() as connection:
                used = bool(inspect(connection).get_table_names())
        except DBAPIError as error:
            raise Unusable(f"The database cannot be reached: {str(error.orig).strip().splitlines()[0]}.") from error
    if used:
        raise Unusable("The database is not empty. Give an empty one with --database-url, or drop its tables first.")


def load_postgresql(url: str, directory: Path, revision: str) -> None:
    """Fills an empty PostgreSQL database, all or nothing, with the tables of that revision."""
    with _engine(url) as engine, engine.begin() as connection:
        runner.upgrade(connection, revision)
        tables = _tables(connection)
        for table in tables:
            connection.execute(table.delete())
        for table in tables:
            _copy_in(connection, table, directory / f"{table.name}.copy")
        for table in tables:
            _continue_numbers(connection, table)


def empty_postgresql(url: str) -> None:
    """Drops all tables of a database that was empty before it was filled."""
    with _engine(url) as engine, engine.begin() as connection:
        for name in inspect(connection).get_table_names():
            connection.execute(text(f"DROP TABLE {_quoted(connection, name)} CASCADE"))


@contextmanager
def _engine(url: str) -> Iterator[Engine]:
    parts = make_url(url)
    if parts.get_backend_name() == "sqlite":
        parts = parts.set(drivername="sqlite")
    elif parts.drivername == "postgresql":
        parts = parts.set(drivername="postgresql+psycopg")
    engine = create_engine(parts, poolclass=NullPool, hide_parameters=True)
    try:
        yield engine
    finally:
        engine.dispose()


def _take_sqlite(source: Path, target: Path) -> None:
    connection = sqlite3.connect(source, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        connection.execute("VACUUM INTO ?", (str(target),))
    finally:
        connection.close()
    target.chmod(0o600)


@contextmanager
def _reading(url: str) -> Iterator[Connection]:
    with _engine(url) as engine:
        try:
            opened = engine.connect()
        except DBAPIError as error:
            raise Unusable(f"The database cannot be reached: {str(error.orig).strip().splitlines()[0]}.") from error
        with opened.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True) as connection:
            yield connection


def _tables(connection: Connection) -> list[Table]:
    """All tables but the migrations' own, those that others refer to first."""
    metadata = MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != VERSIONS_TABLE]


def _quoted(connection: Connection, name: str) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(name)


def _columns(connection: Connection, table: Table) -> str:
    return ", ".join(_quoted(connection, column.name) for column in table.columns if column.computed is None)


def _copy_out(connection: Connection, table: Table, path: Path) -> None:
    names = _columns(connection, table)
    statement = f"COPY {_quoted(connection, table.name)} ({names}) TO STDOUT"
    with path.open("wb") as file, _cursor(connection) as cursor, cursor.copy(statement) as copy:
        file.write(f"{names}\n".encode())
        for data in copy:
            file.write(data)


def _copy_in(connection: Connection, table: Table, path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb") as file, _cursor(connection) as cursor:
        names = file.readline().decode().strip()
        statement = f"COPY {_quoted(connection, table.name)} ({names}) FROM STDIN"
        with cursor.copy(statement) as copy:
            while data := file.read(COPY_BYTES):
                copy.write(data)


@contextmanager
def _cursor(connection: Connection) -> Iterator[Any]:
    raw = connection.connection.driver_connection
    if raw is None:
        raise RuntimeError("a connection without its driver's")
    with raw.cursor() as cursor:
        yield cursor


def _continue_numbers(connection: Connection, table: Table) -> None:
    """Counted keys go on after the highest one there is."""
    for column in table.primary_key.columns:
        sequence = connection.scalar(
            text("SELECT pg_get_serial_sequence(:table, :column)"),
            {"table": _quoted(connection, table.name), "column": column.name},
        )
        if sequence:
            highest = f"(SELECT max({_quoted(connection, column.name)}) FROM {_quoted(connection, table.name)})"  # noqa: S608
            connection.execute(
                text(f"SELECT setval(:name, coalesce({highest}, 1), {highest} IS NOT NULL)"), {"name": sequence}
            )
