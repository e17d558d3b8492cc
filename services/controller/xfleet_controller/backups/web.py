"""Backups, their schedule, and how long things are kept, with a browser."""

from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from litestar.response import File, Redirect

from xfleet_contracts.errors import Refusal
from xfleet_controller.auth.rights import authorize
from xfleet_controller.backups import service
from xfleet_controller.backups.archive import MIN_PASSPHRASE
from xfleet_controller.backups.store import Backup, Schedule
from xfleet_controller.backups.views import BackupRowView, BackupsPageView
from xfleet_controller.errors import NotFound
from xfleet_controller.panel.forms import Fields, read_fields, refused, whole_number
from xfleet_controller.panel.views import FormView
from xfleet_controller.panel.visit import UNPROCESSABLE, Visit
from xfleet_controller.upkeep import service as upkeep
from xfleet_controller.upkeep.retention import LIMITS, Retention

PATH = "/settings/backups"
DONE = frozenset({"made", "planned", "kept", "removed"})
NEW = {"passphrase": ""}
NO_NUMBER = -1
"""Stands for what is no number: it is out of every range."""


@get("/settings/backups", include_in_schema=False)
async def show_backups(visit: NamedDependency[Visit], done: FromQuery[str] = "") -> Response[bytes]:
    """The page."""
    return await _page(visit, done=done if done in DONE else "")


@post("/settings/backups", include_in_schema=False)
async def make_backup(visit: NamedDependency[Visit]) -> Response[Any]:
    """Makes one now."""
    fields = await read_fields(visit.request)
    try:
        await service.make(visit.context, visit.actor, secret=fields.secret("passphrase"))
    except Refusal as refusal:
        return await _page(visit, new_form=_refused(visit, NEW, refusal), status=UNPROCESSABLE)
    return _done(visit, "made")


@post("/settings/backups/schedule", include_in_schema=False)
async def take_schedule(visit: NamedDependency[Visit]) -> Response[Any]:
    """Plans them."""
    fields = await read_fields(visit.request)
    schedule = Schedule(
        every_hours=_number(fields, "every_hours"),
        keep_count=_number(fields, "keep_count"),
        directory=fields.text("directory"),
    )
    try:
        await service.plan(visit.context, visit.actor, schedule, secret=fields.secret("plan_passphrase") or None)
    except Refusal as refusal:
        names = {"passphrase": "plan_passphrase"}
        form = _refused(visit, _kept(fields, "every_hours", "keep_count", "directory"), refusal, names)
        return await _page(visit, plan_form=form, status=UNPROCESSABLE)
    return _done(visit, "planned")


@post("/settings/backups/retention", include_in_schema=False)
async def take_retention(visit: NamedDependency[Visit]) -> Response[Any]:
    """Changes how long things are kept."""
    fields = await read_fields(visit.request)
    try:
        authorize(visit.actor, service.ACTION)
        wanted = msgspec.convert({name: _number(fields, name) for name in LIMITS}, Retention)
        await upkeep.change_retention(visit.context, visit.actor, wanted)
    except Refusal as refusal:
        form = _refused(visit, _kept(fields, *LIMITS), refusal)
        return await _page(visit, retention_form=form, status=UNPROCESSABLE)
    return _done(visit, "kept")


@get("/settings/backups/{name:str}/file", include_in_schema=False)
async def fetch_backup(visit: NamedDependency[Visit], name: FromPath[str]) -> File:
    """The encrypted file."""
    path = await service.find_file(visit.context, visit.actor, name)
    return File(path, filename=name, media_type="application/octet-stream")


@get("/settings/backups/{name:str}/delete", include_in_schema=False)
async def show_delete(visit: NamedDependency[Visit], name: FromPath[str]) -> Response[bytes]:
    """Asks once more."""
    found = await service.look(visit.context, visit.actor)
    for row in found.backups:
        if row.name == name:
            return visit.dialog("backups/_delete.html", "Remove backup?", row=_row(row))
    raise NotFound("There is no such backup.")


@post("/settings/backups/{name:str}/delete", include_in_schema=False)
async def remove_backup(visit: NamedDependency[Visit], name: FromPath[str]) -> Response[Any]:
    """Removes it for good."""
    await service.remove(visit.context, visit.actor, name)
    return _done(visit, "removed")


DOORS = (show_backups, make_backup, take_schedule, take_retention, fetch_backup, show_delete, remove_backup)


def _row(row: Backup) -> BackupRowView:
    return BackupRowView(name=row.name, size_bytes=row.size_bytes, made_at=row.made_at, scheduled=row.scheduled)


def _done(visit: Visit, what: str) -> Response[Any]:
    return Redirect(visit.url(PATH, done=what), status_code=303)


def _number(fields: Fields, name: str) -> int:
    found = whole_number(fields.text(name))
    return NO_NUMBER if found is None else found


def _kept(fields: Fields, *names: str) -> dict[str, str]:
    return {name: fields.text(name) for name in names}


def _refused(
    visit: Visit, values: Mapping[str, str], refusal: Refusal, names: Mapping[str, str] | None = None
) -> FormView:
    """The form again; who may not do this at all gets no page."""
    authorize(visit.actor, service.ACTION)
    return refused({**values, **dict.fromkeys((names or {}).values(), "")}, refusal, names=names)


async def _page(
    visit: Visit,
    *,
    new_form: FormView | None = None,
    plan_form: FormView | None = None,
    retention_form: FormView | None = None,
    done: str = "",
    status: int = 200,
) -> Response[bytes]:
    found = await service.look(visit.context, visit.actor)
    kept = await upkeep.get_retention(visit.context, visit.actor)
    planned = {
        "every_hours": str(found.schedule.every_hours),
        "keep_count": str(found.schedule.keep_count),
        "directory": found.schedule.directory,
        "plan_passphrase": "",
    }
    page = BackupsPageView(
        rows=tuple(_row(row) for row in found.backups),
        directory=str(found.directory),
        passphrase_known=found.passphrase_known,
        planned=found.schedule.every_hours > 0,
        last_error=found.last_error,
        new_form=new_form or FormView(values=dict(NEW)),
        plan_form=plan_form or FormView(values=planned),
        retention_form=retention_form or FormView(values={name: str(getattr(kept, name)) for name in LIMITS}),
        passphrase_length=MIN_PASSPHRASE,
        done=done,
    )
    return visit.page("backups/index.html", backups=page, status=status)
