"""A throw-away PostgreSQL, and the fixture that gives a test a migrated database of each kind.

Use in a conftest: `from harness.postgres import database, postgres_server  # noqa: F401`.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from harness.real import is_missing
from xfleet_controller.db import Database
from xfleet_runtime.ids import new_token

PROGRAMS = Path("/usr/lib/postgresql")
ACCOUNT = "postgres"
SETTINGS = ("listen_addresses=", "fsync=on", "max_connections=60", "log_min_messages=warning", "shared_buffers=128MB")


@dataclass(frozen=True)
class PostgresServer:
    """A running server on a Unix socket."""

    directory: Path

    def url(self, name: str) -> str:
        """SQLAlchemy's URL of a database."""
        return f"postgresql+psycopg://{ACCOUNT}@/{name}?host={self.directory}"

    def run(self, *statements: str) -> None:
        """Runs statements one by one, outside of a transaction."""
        with psycopg.connect(host=str(self.directory), user=ACCOUNT, dbname="postgres", autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def stop(self, how: str = "immediate") -> None:
        """Ends the server: `immediate` as a crash would, `fast` in good order."""
        _as_postgres(_program("pg_ctl"), "-D", str(self.directory / "data"), "-m", how, "-w", "stop")

    def start(self) -> None:
        """Starts it (again)."""
        options = " ".join(f"-c {each}" for each in (*SETTINGS, f"unix_socket_directories={self.directory}"))
        data, log = self.directory / "data", self.directory / "log"
        _as_postgres(_program("pg_ctl"), "-D", str(data), "-l", str(log), "-w", "-o", options, "start")


def _program(name: str) -> str:
    found = sorted(PROGRAMS.glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name) or ""


def _as_postgres(*command: str) -> None:
    drop = ["setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--init-groups"] if os.geteuid() == 0 else []
    done = subprocess.run([*drop, *command], cwd="/", capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]}: {done.stderr or done.stdout}")


@contextmanager
def throw_away_server() -> Iterator[PostgresServer]:
    """A server in a directory of its own, gone with everything in it at the end."""
    directory = Path(tempfile.mkdtemp(prefix="xfleet-pg-", dir="/tmp"))
    if os.geteuid() == 0:
        shutil.chown(directory, ACCOUNT, ACCOUNT)
    server = PostgresServer(directory)
    try:
        _as_postgres(_program("initdb"), "-D", str(directory / "data"), "-A", "trust", "-E", "UTF8", "--no-sync")
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """One server for the whole run; skips, or fails under `--require-real`, where there is none."""
    if not _program("initdb"):
        is_missing(request.config, "PostgreSQL's server programs are not installed")
    with throw_away_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """Name of a migrated database that others are copied from."""
    import asyncio

    async def migrate() -> None:
        database = Database(postgres_server.url("template_xfleet"))
        await database.migrate()
        await database.close()

    postgres_server.run("CREATE DATABASE template_xfleet")
    asyncio.run(migrate())
    return "template_xfleet"


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    """URL of a fresh, migrated PostgreSQL database."""
    name = f"x{new_token()[:12].lower().replace('-', '_')}"
    postgres_server.run(f'CREATE DATABASE "{name}" TEMPLATE {postgres_template}')
    yield postgres_server.url(name)
    postgres_server.run(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database of each kind; the PostgreSQL one is migrated already."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    return f"sqlite+aiosqlite:///{tmp_path / 'xfleet.db'}"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A migrated database of each kind."""
    opened = Database(database_url)
    await opened.migrate()
    yield opened
    await opened.close()
