"""`/api/v1/audit`."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from litestar import Controller, get
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Stream

from xfleet_controller.api import Page, PageOf, PageSize
from xfleet_controller.audit import service
from xfleet_controller.audit.difference import Change, difference
from xfleet_controller.audit.models import AuditRow
from xfleet_controller.audit.service import Form
from xfleet_controller.audit.store import AuditFilter
from xfleet_controller.edge import TheActor, TheContext

Text = Annotated[str, QueryParameter(max_length=100)]
MEDIA = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl"}


class AuditOut(msgspec.Struct, kw_only=True):
    """Who did what to what, when, from where."""

    id: int
    at: datetime
    actor: str
    address: str
    action: str
    object_kind: str
    object_id: str
    object_name: str
    before: Any
    after: Any
    """Before and after are redacted."""
    changes: Sequence[Change]


class AuditApi(Controller):
    """The audit log."""

    path = "/audit"
    tags = ["audit"]

    @get(summary="Read the audit log")
    async def list_rows(
        self,
        context: TheContext,
        actor: TheActor,
        by: Text = "",
        action: Text = "",
        kind: Text = "",
        subject: Text = "",
        since: FromQuery[datetime | None] = None,
        until: FromQuery[datetime | None] = None,
        page: Page = 1,
        page_size: PageSize = 50,
    ) -> PageOf[AuditOut]:
        """Newest first; `by` is part of the actor, `subject` part of the object's name or its id."""
        wanted = _filter(by, action, kind, subject, since, until)
        found = await service.list_rows(context, actor, wanted, page=page, page_size=page_size)
        return PageOf(items=[_out(row) for row in found.rows], total=found.total, page=page, page_size=page_size)

    @get("/export/{form:str}", summary="Export the audit log", media_type="text/plain")
    async def export(
        self,
        context: TheContext,
        actor: TheActor,
        form: FromPath[Form],
        by: Text = "",
        action: Text = "",
        kind: Text = "",
        subject: Text = "",
        since: FromQuery[datetime | None] = None,
        until: FromQuery[datetime | None] = None,
    ) -> Stream:
        """As `csv` or `jsonl`, newest first."""
        rows = service.export(context, actor, _filter(by, action, kind, subject, since, until), form)
        return download(rows, form)


def download(rows: AsyncIterator[bytes], form: Form) -> Stream:
    """A file of the log."""
    headers = {"content-disposition": f'attachment; filename="xfleet-audit.{form}"', "cache-control": "no-store"}
    return Stream(rows, media_type=MEDIA[form], headers=headers)


def _filter(
    by: str, action: str, kind: str, subject: str, since: datetime | None, until: datetime | None
) -> AuditFilter:
    return AuditFilter(
        actor=by, action=action, kind=kind, subject=subject, since_at=_aware(since), until_at=_aware(until)
    )


def _aware(at: datetime | None) -> datetime | None:
    """A moment without a zone is meant as UTC."""
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at


def _out(row: AuditRow) -> AuditOut:
    names = ("id", "at", "actor", "address", "action", "object_kind", "object_id", "object_name", "before", "after")
    fields = {name: getattr(row, name) for name in names}
    return AuditOut(**fields, changes=difference(row.before, row.after))
