"""Rollouts with a browser."""

from collections.abc import Awaitable, Callable
from typing import Any

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from xfleet_contracts.errors import Refusal
from xfleet_controller.auth.rights import Actor, authorize, may
from xfleet_controller.context import Context
from xfleet_controller.panel.forms import Fields, read_fields, refused, whole_number
from xfleet_controller.panel.store import server_names
from xfleet_controller.panel.views import MAX_PAGE, FormView, OptionView, PagingView
from xfleet_controller.panel.visit import UNPROCESSABLE, Visit
from xfleet_controller.rollouts import service
from xfleet_controller.rollouts.present import WORDS, rollout_detail, rollout_row
from xfleet_controller.rollouts.service import RolloutNew, RolloutView
from xfleet_controller.rollouts.views import RolloutFormView, RolloutsPageView

PAGE_SIZE = 25
NAMES = {
    "body.version": "version", "version": "version", "archive.url": "url", "archive.sha256": "sha256",
    "wheel.url": "url", "wheel.sha256": "sha256", "files.0.name": "file_name", "files.0.file.url": "url",
    "files.0.file.sha256": "sha256", "files": "file_name", "server_ids": "server_ids",
}  # fmt: skip
"""The form's field for a path of a refusal."""
FIRST = {"verb": "agent.update", "waves": "1, 10%, rest", "watch_s": "30", "file_name": "geoip.dat"}


@get("/rollouts", include_in_schema=False)
async def show_rollouts(visit: NamedDependency[Visit], page: FromQuery[int] = 1) -> Response[bytes]:
    """All rollouts, newest first."""
    page = min(max(1, page), MAX_PAGE)
    views, total = await service.list_rollouts(visit.context, visit.actor, page=page, page_size=PAGE_SIZE)
    rollouts = RolloutsPageView(
        rows=tuple(rollout_row(view) for view in views),
        paging=PagingView(page=page, page_size=PAGE_SIZE, total=total),
        may_write=may(visit.actor, service.WRITE),
    )
    return visit.page("rollouts/index.html", rollouts=rollouts, live_url=visit.live_url("rollouts"))


@get("/rollouts/new", include_in_schema=False)
async def show_new_rollout(visit: NamedDependency[Visit]) -> Response[bytes]:
    """The form of a new rollout."""
    authorize(visit.actor, service.WRITE)
    return await _form(visit, FormView(values=FIRST), ())


@post("/rollouts/new", include_in_schema=False)
async def take_new_rollout(visit: NamedDependency[Visit]) -> Response[Any]:
    """Starts a rollout."""
    fields = await read_fields(visit.request)
    try:
        view = await service.create(visit.context, visit.actor, _new_of(fields))
    except Refusal as refusal:
        form = refused(fields.values() | {"server_ids": ""}, refusal, names=NAMES)
        return await _form(visit, form, tuple(fields.every("server_ids")), UNPROCESSABLE)
    return visit.done(f"/rollouts/{view.rollout.id}", "The rollout has begun", "rollouts-changed")


@get("/rollouts/{rollout_id:int}", include_in_schema=False)
async def show_rollout(visit: NamedDependency[Visit], rollout_id: FromPath[int]) -> Response[bytes]:
    """One rollout, live."""
    view = rollout_detail(await service.get(visit.context, visit.actor, rollout_id), visit.actor)
    return visit.page("rollouts/show.html", rollout=view, live_url=visit.live_url("rollout", ids=rollout_id))


@post("/rollouts/{rollout_id:int}/pause", include_in_schema=False)
async def pause_rollout(visit: NamedDependency[Visit], rollout_id: FromPath[int]) -> Response[Any]:
    """No further server is ordered."""
    return await _moved(visit, rollout_id, service.pause, "The rollout pauses")


@post("/rollouts/{rollout_id:int}/resume", include_in_schema=False)
async def resume_rollout(visit: NamedDependency[Visit], rollout_id: FromPath[int]) -> Response[Any]:
    """Goes on."""
    return await _moved(visit, rollout_id, service.resume, "The rollout goes on")


@post("/rollouts/{rollout_id:int}/cancel", include_in_schema=False)
async def cancel_rollout(visit: NamedDependency[Visit], rollout_id: FromPath[int]) -> Response[Any]:
    """Ends it."""
    return await _moved(visit, rollout_id, service.cancel, "The rollout is cancelled")


async def _moved(
    visit: Visit, rollout_id: int, move: Callable[[Context, Actor, int], Awaitable[RolloutView]], words: str
) -> Response[Any]:
    await move(visit.context, visit.actor, rollout_id)
    return visit.done(f"/rollouts/{rollout_id}", words, "rollouts-changed")


async def _form(visit: Visit, form: FormView, chosen: tuple[str, ...], status: int = 200) -> Response[bytes]:
    async with visit.context.database.read() as session:
        names = await server_names(session)
    options = {
        "verb": tuple(OptionView(value=verb, label=label) for verb, label in WORDS.items()),
        "server_ids": tuple(
            OptionView(value=str(server_id), label=name, chosen=str(server_id) in chosen)
            for server_id, name in names.items()
        ),
    }
    view = RolloutFormView(
        form=FormView(values=form.values, errors=form.errors, options=options), servers_count=len(names)
    )
    return visit.dialog("rollouts/_form.html", "New rollout", status=status, rollout_form=view)


def _new_of(fields: Fields) -> RolloutNew:
    """The form as an order; what it cannot mean the service refuses."""
    verb, version = fields.text("verb"), fields.text("version").removeprefix("v")
    file = {"url": fields.text("url"), "sha256": fields.text("sha256").lower()}
    given = bool(file["url"] or file["sha256"])
    bodies: dict[str, dict[str, Any]] = {
        "agent.update": {"version": version, "wheel": file},
        "xray.install": {"version": version, "archive": file if given else None},
        "geofiles.update": {"files": [{"name": fields.text("file_name"), "file": file}]},
    }
    return RolloutNew(
        verb=verb,
        body=bodies.get(verb, {}),
        server_ids=[number for each in fields.every("server_ids") if (number := whole_number(each)) is not None],
        tag=fields.text("tag"),
        waves=fields.words("waves"),
        watch_s=whole_number(fields.text("watch_s")) or 0,
    )


DOORS = (
    show_rollouts, show_new_rollout, take_new_rollout, show_rollout, pause_rollout, resume_rollout, cancel_rollout,
)  # fmt: skip
