"""The little that SQLite and PostgreSQL spell differently."""

from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.tables import Base

BATCH = 500
"""Values in one `IN` list: below every database's limit of parameters."""


def is_sqlite(session: AsyncSession) -> bool:
    """Whether the session talks to SQLite."""
    return session.get_bind().dialect.name == "sqlite"


def insert_into(session: AsyncSession, table: type[Base]) -> Any:
    """An INSERT that knows `on_conflict_do_update` and `on_conflict_do_nothing`."""
    return sqlite.insert(table) if is_sqlite(session) else postgresql.insert(table)


def batches(values: list[Any], size: int = BATCH) -> list[list[Any]]:
    """The values in lists of at most `size`."""
    return [values[at : at + size] for at in range(0, len(values), size)]
