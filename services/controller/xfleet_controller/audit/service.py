"""Reading the audit log: pages by filter, and all of it as CSV or JSON lines."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from xfleet_controller.audit import store
from xfleet_controller.audit.models import AuditRow
from xfleet_controller.audit.store import AuditFilter
from xfleet_controller.auth.rights import Actor, authorize
from xfleet_controller.context import Context
from xfleet_controller.texts import has_controls

Form = Literal["csv", "jsonl"]
BATCH_COUNT = 1000
MAX_EXPORT = 200_000
COLUMNS = ("id", "at", "actor", "address", "action", "object_kind", "object_id", "object_name", "before", "after")
RISKY = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings that a spreadsheet takes for a formula."""


class AuditPage(NamedTuple):
    """A page of the log."""

    rows: Sequence[AuditRow]
    total: int


async def list_rows(
    context: Context, actor: Actor, wanted: AuditFilter, *, page: int = 1, page_size: int = 50
) -> AuditPage:
    """Rows, newest first."""
    authorize(actor, "audit.read")
    if has_controls(wanted.actor + wanted.action + wanted.kind + wanted.subject):
        return AuditPage((), 0)
    async with context.database.read() as session:
        rows, total = await store.list_rows(session, wanted, offset=(page - 1) * page_size, limit=page_size)
    return AuditPage(rows, total)


async def list_actions(context: Context, actor: Actor) -> Sequence[str]:
    """Actions that occur in the log."""
    authorize(actor, "audit.read")
    async with context.database.read() as session:
        return await store.list_actions(session)


def export(context: Context, actor: Actor, wanted: AuditFilter, form: Form) -> AsyncIterator[bytes]:
    """The rows, newest first, at most `MAX_EXPORT`, a batch at a time; refuses before the first byte."""
    authorize(actor, "audit.read")
    return _export(context, wanted, form)


async def _export(context: Context, wanted: AuditFilter, form: Form) -> AsyncIterator[bytes]:
    if form == "csv":
        yield _csv_line(COLUMNS)
    write, last_id, left_count = (_csv_row if form == "csv" else _json_row), None, MAX_EXPORT
    while left_count > 0:
        async with context.database.read() as session:
            rows = await store.list_before(session, wanted, last_id, min(BATCH_COUNT, left_count))
        if not rows:
            return
        yield b"".join(write(row) for row in rows)
        last_id, left_count = rows[-1].id, left_count - len(rows)


def _json_row(row: AuditRow) -> bytes:
    return msgspec.json.encode({name: getattr(row, name) for name in COLUMNS}) + b"\n"


def _csv_row(row: AuditRow) -> bytes:
    return _csv_line([_cell(getattr(row, name)) for name in COLUMNS])


def _cell(value: Any) -> str:
    """A cell no spreadsheet runs."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode().strip('"')
    return f"'{text}" if text.startswith(RISKY) else text


def _csv_line(cells: Sequence[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue().encode()
