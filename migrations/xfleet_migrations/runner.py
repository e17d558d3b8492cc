"""Brings a database to the newest form, under a lock, one transaction per migration."""

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

ADVISORY_LOCK = 0x78666C65
"""Key of the PostgreSQL advisory lock that keeps two controllers from migrating at once."""


def script_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, made here so that no ini file has to travel."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def newest_revision() -> str:
    """The revision this release brings databases to."""
    head = ScriptDirectory.from_config(script_config()).get_current_head()
    if head is None:
        raise RuntimeError("there are no migrations")
    return head


def is_known(revision: str) -> bool:
    """Whether this release knows the revision: it is not of a newer one."""
    return revision in {script.revision for script in ScriptDirectory.from_config(script_config()).walk_revisions()}


def current_revision(connection: Connection) -> str | None:
    """The revision the database is at; None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Runs what is missing up to that revision; the caller commits.

    PostgreSQL is locked against a second controller meanwhile.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        connection.execute(text("SET LOCAL lock_timeout = '30s'"))
    command.upgrade(script_config(connection), revision)
