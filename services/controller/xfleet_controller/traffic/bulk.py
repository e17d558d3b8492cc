"""Set-based writing: thousands of additions in one statement, the same rules on SQLite and PostgreSQL.

Rows go sorted by key: PostgreSQL then locks them in that order, so that two ingesters never wait for each other in a
circle. PostgreSQL takes each column as one array, written as text because that is the quickest for the driver.
"""

import asyncio
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

INT = "bigint"
TEXT = "text"
MOMENT = "moment"
"""Unix milliseconds on our side, a moment in the table."""

SQLITE_CHUNK = 20_000
MOST_BYTES = 2**58
"""Where a sum stops: no honest one gets there, and two of them still fit into a column."""


class AddingUpsert(msgspec.Struct, frozen=True, kw_only=True):
    """Adds figures to rows found by key, making the rows that are missing."""

    table: str
    keys: tuple[tuple[str, str], ...]
    """Name and type; rows must come sorted by these."""
    adds: tuple[str, ...]
    fixed: tuple[str, ...] = ()
    """Numbers set when the row is made, left alone afterwards."""
    latest: tuple[str, ...] = ()
    """Moments of which the later one stays."""
    also: tuple[tuple[str, str], ...] = ()
    """A column that adds what another one adds: (`period_up_bytes`, `up_bytes`)."""

    async def run(self, session: AsyncSession, columns: Sequence[Sequence[Any]]) -> None:
        """Adds these rows, given column by column in the order keys, adds, fixed, latest."""
        if not columns or not columns[0]:
            return
        columns = self._within_bounds(columns)
        connection = await session.connection()
        if connection.dialect.name == "postgresql":
            arrays = await asyncio.to_thread(self._arrays, columns)
            await connection.exec_driver_sql(self._postgresql, arrays)
            return
        rows = await asyncio.to_thread(self._rows, columns)
        for start in range(0, len(rows), SQLITE_CHUNK):
            await connection.exec_driver_sql(self._sqlite, rows[start : start + SQLITE_CHUNK])

    def _within_bounds(self, columns: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
        first, last = len(self.keys), len(self.keys) + len(self.adds)
        return [
            [min(figure, MOST_BYTES) for figure in column]
            if first <= place < last and max(column) > MOST_BYTES
            else column
            for place, column in enumerate(columns)
        ]

    def _arrays(self, columns: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
        return tuple(map(_array, self._types, columns))

    def _rows(self, columns: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        return list(zip(*map(_plain, self._types, columns), strict=True))

    @property
    def _names(self) -> list[str]:
        return self._given + [name for name, _ in self.also]

    @property
    def _given(self) -> list[str]:
        return [name for name, _ in self.keys] + [*self.adds, *self.fixed, *self.latest]

    @property
    def _added(self) -> list[str]:
        return [*self.adds, *(name for name, _ in self.also)]

    @property
    def _types(self) -> list[str]:
        return (
            [kind for _, kind in self.keys] + [INT] * (len(self.adds) + len(self.fixed)) + [MOMENT] * len(self.latest)
        )

    @property
    def _postgresql(self) -> str:
        places = ", ".join("%s::text[]" if kind == TEXT else "%s::text::bigint[]" for kind in self._types)
        values = ", ".join(
            f"to_timestamp(v{place} / 1000.0)" if kind == MOMENT else f"v{place}"
            for place, kind in enumerate(self._types)
        )
        values += "".join(f", v{self._given.index(source)}" for _, source in self.also)
        names = ", ".join(f"v{place}" for place in range(len(self._types)))
        sets = [f"{name} = LEAST(t.{name} + excluded.{name}, {MOST_BYTES})" for name in self._added]
        sets += [f"{name} = GREATEST(t.{name}, excluded.{name})" for name in self.latest]
        return (  # names of our own tables and columns, never a value
            f"INSERT INTO {self.table} AS t ({', '.join(self._names)}) "  # noqa: S608
            f"SELECT {values} FROM unnest({places}) AS s({names}) "
            f"ON CONFLICT ({', '.join(name for name, _ in self.keys)}) DO UPDATE SET {', '.join(sets)}"
        )

    @property
    def _sqlite(self) -> str:
        places = [f"?{place}" for place in range(1, len(self._types) + 1)]
        places += [f"?{self._given.index(source) + 1}" for _, source in self.also]
        sets = [f"{name} = min({name} + excluded.{name}, {MOST_BYTES})" for name in self._added]
        sets += [f"{name} = max(coalesce({name}, excluded.{name}), excluded.{name})" for name in self.latest]
        return (
            f"INSERT INTO {self.table} ({', '.join(self._names)}) "  # noqa: S608
            f"VALUES ({', '.join(places)}) "
            f"ON CONFLICT ({', '.join(name for name, _ in self.keys)}) DO UPDATE SET {', '.join(sets)}"
        )


async def select_members(session: AsyncSession, sql: str, numbers: Iterable[int]) -> list[Any]:
    """The rows of a SELECT whose `{members}` stands for these numbers, however many they are."""
    connection = await session.connection()
    if connection.dialect.name == "postgresql":
        statement = sql.replace("{members}", "SELECT unnest(%s::text::bigint[])")
        return list(await connection.exec_driver_sql(statement, (_array(INT, list(numbers)),)))
    statement = sql.replace("{members}", "SELECT value FROM json_each(?)")
    return list(await connection.exec_driver_sql(statement, (json.dumps(list(numbers)),)))


def _array(kind: str, column: Sequence[Any]) -> Any:
    return list(column) if kind == TEXT else "{" + ",".join(map(str, column)) + "}"


def _plain(kind: str, column: Sequence[Any]) -> Sequence[Any]:
    if kind != MOMENT:
        return column
    known = {unix_ms: _sqlite_moment(unix_ms) for unix_ms in set(column)}
    return [known[unix_ms] for unix_ms in column]


def _sqlite_moment(unix_ms: int) -> str:
    moment = datetime.fromtimestamp(unix_ms / 1000, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")
