"""The audit log with a browser."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Stream

from xfleet_controller.audit import service
from xfleet_controller.audit.api import download
from xfleet_controller.audit.difference import difference
from xfleet_controller.audit.models import AuditRow
from xfleet_controller.audit.service import Form
from xfleet_controller.audit.store import AuditFilter
from xfleet_controller.audit.views import AuditPageView, AuditRowView
from xfleet_controller.panel.views import MAX_PAGE, OptionView, PagingView
from xfleet_controller.panel.visit import Visit

PAGE_SIZE = 50
MAX_TEXT = 100
Text = Annotated[str, QueryParameter()]


@get("/settings/audit", include_in_schema=False)
async def show_audit(
    visit: NamedDependency[Visit],
    by: Text = "",
    action: Text = "",
    subject: Text = "",
    since: Text = "",
    until: Text = "",
    page: FromQuery[int] = 1,
) -> Response[bytes]:
    """Who did what, newest first."""
    query = _query(by, action, subject, since, until)
    page = min(max(1, page), MAX_PAGE)
    found = await service.list_rows(visit.context, visit.actor, _filter(query), page=page, page_size=PAGE_SIZE)
    actions = await service.list_actions(visit.context, visit.actor)
    view = AuditPageView(
        rows=tuple(_row(row) for row in found.rows),
        paging=PagingView(page=page, page_size=PAGE_SIZE, total=found.total),
        actions=tuple(OptionView(value=each, label=action_words(each)) for each in actions),
        query=query,
    )
    return visit.page("audit/index.html", audit=view)


@get("/settings/audit/export/{form:str}", include_in_schema=False)
async def export_audit(
    visit: NamedDependency[Visit],
    form: FromPath[Form],
    by: Text = "",
    action: Text = "",
    subject: Text = "",
    since: Text = "",
    until: Text = "",
) -> Stream:
    """What the filters show, all of it, as a file."""
    wanted = _filter(_query(by, action, subject, since, until))
    return download(service.export(visit.context, visit.actor, wanted, form), form)


def action_words(action: str) -> str:
    """`edit_admin` as `Edit admin`."""
    return action.replace("_", " ").replace(".", " ").capitalize()


def _query(by: str, action: str, subject: str, since: str, until: str) -> dict[str, str]:
    given = {"by": by, "action": action, "subject": subject, "since": since, "until": until}
    return {name: value.strip()[:MAX_TEXT] for name, value in given.items()}


def _filter(query: dict[str, str]) -> AuditFilter:
    until = _day(query["until"])
    return AuditFilter(
        actor=query["by"],
        action=query["action"],
        subject=query["subject"],
        since_at=_day(query["since"]),
        until_at=until + timedelta(days=1) if until else None,
    )


def _day(text: str) -> datetime | None:
    """The beginning of a day in UTC; None for what is no date."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return datetime(day.year, day.month, day.day, tzinfo=UTC) if day.year < date.max.year else None


def _row(row: AuditRow) -> AuditRowView:
    return AuditRowView(
        id=row.id,
        at=row.at,
        actor=row.actor,
        address=row.address,
        words=action_words(row.action),
        kind=row.object_kind,
        object_id=row.object_id,
        object_name=row.object_name,
        changes=difference(row.before, row.after),
    )
