"""A server's history, the way back, and strays, with a browser."""

from typing import Any

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from xfleet_contracts.errors import Refusal
from xfleet_controller.auth.rights import authorize
from xfleet_controller.errors import NotFound
from xfleet_controller.panel.forms import read_fields, whole_number
from xfleet_controller.panel.views import MAX_PAGE, OptionView, PagingView
from xfleet_controller.panel.visit import UNPROCESSABLE, Visit
from xfleet_controller.servers import adopting, history
from xfleet_controller.servers.adopting import StrayChoice
from xfleet_controller.servers.diff import server_diff
from xfleet_controller.servers.history import RevertOrder, VersionLine
from xfleet_controller.servers.service import get_server
from xfleet_controller.servers.state_views import STRAYS_SHOWN_COUNT, CompareView, HistoryPageView, RevertView

CHANGED = "history-changed"
PAGE_SIZE = 25


@get("/servers/{server_id:int}/history", include_in_schema=False)
async def show_history(
    visit: NamedDependency[Visit], server_id: FromPath[int], page: FromQuery[int] = 1
) -> Response[bytes]:
    """Versions of the configuration, what waits, and what only the server knows."""
    page = min(max(1, page), MAX_PAGE)
    context, actor = visit.context, visit.actor
    view = await get_server(context, actor, server_id)
    versions, total = await history.list_versions(context, actor, server_id, page=page, page_size=PAGE_SIZE)
    strays = await adopting.list_stray_lines(context, actor, server_id)
    shown = HistoryPageView(
        server_id=server_id,
        server_name=view.server.name,
        diff=await server_diff(context, actor, server_id),
        strays=tuple(strays[:STRAYS_SHOWN_COUNT]),
        more_strays_count=max(0, len(strays) - STRAYS_SHOWN_COUNT),
        versions=tuple(versions),
        paging=PagingView(page=page, page_size=PAGE_SIZE, total=total),
    )
    return visit.page("servers/history.html", history=shown)


@get("/servers/{server_id:int}/history/{version:int}", include_in_schema=False)
async def show_version(
    visit: NamedDependency[Visit], server_id: FromPath[int], version: FromPath[int], other: FromQuery[str] = ""
) -> Response[bytes]:
    """What leads from a version to another one, or to now."""
    against = whole_number(other)
    changes = await history.compare_versions(visit.context, visit.actor, server_id, version, against)
    versions, _ = await history.list_versions(visit.context, visit.actor, server_id, page_size=200)
    others = tuple(
        OptionView(
            value=str(each.id), label=f"{each.created_at:%Y-%m-%d %H:%M} · {each.operation}", chosen=each.id == against
        )
        for each in versions
        if each.id != version
    )
    compare = CompareView(server_id=server_id, version=version, others=others, changes=tuple(changes))
    return visit.dialog("servers/_compare.html", "Compare", compare=compare)


@get("/servers/{server_id:int}/history/{version:int}/revert", include_in_schema=False)
async def show_revert(
    visit: NamedDependency[Visit], server_id: FromPath[int], version: FromPath[int]
) -> Response[bytes]:
    """What going back would do, before it is done."""
    authorize(visit.actor, "servers.write")
    preview = await history.preview_revert(visit.context, visit.actor, server_id, version)
    return visit.dialog("servers/_revert.html", "Go back", revert=RevertView(server_id=server_id, preview=preview))


@post("/servers/{server_id:int}/history/{version:int}/revert", include_in_schema=False)
async def take_revert(visit: NamedDependency[Visit], server_id: FromPath[int], version: FromPath[int]) -> Response[Any]:
    """Goes back."""
    authorize(visit.actor, "servers.write")
    fields = await read_fields(visit.request)
    order = RevertOrder(seen=whole_number(fields.text("seen")), remove_added=fields.is_on("remove_added"))
    try:
        done = await history.revert(visit.context, visit.actor, server_id, version, order)
    except NotFound:
        raise
    except Refusal as refusal:
        preview = await history.preview_revert(visit.context, visit.actor, server_id, version)
        again = RevertView(server_id=server_id, preview=preview, error=refusal.text, remove_added=order.remove_added)
        return visit.dialog("servers/_revert.html", "Go back", status=UNPROCESSABLE, revert=again)
    told = f"Went back: {len(done.changes)} changes" if done.changes else "Nothing was different"
    return visit.done(f"/servers/{server_id}/history", told, CHANGED)


@post("/servers/{server_id:int}/strays", include_in_schema=False)
async def take_strays(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[Any]:
    """Adopts or discards the ticked strays."""
    authorize(visit.actor, "servers.write")
    fields = await read_fields(visit.request)
    choice = StrayChoice(ids=fields.every("ids"))
    if fields.text("decision") == "discard":
        done = await adopting.discard(visit.context, visit.actor, server_id, choice)
        told = f"{done.count} discarded"
    else:
        done = await adopting.adopt(visit.context, visit.actor, server_id, choice)
        told = f"{done.count} adopted"
    return visit.done(f"/servers/{server_id}/history", told, CHANGED)


def _label(line: VersionLine) -> str:
    return f"{line.created_at:%Y-%m-%d %H:%M} · {line.operation}"
