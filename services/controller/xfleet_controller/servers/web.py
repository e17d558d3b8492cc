"""Servers with a browser: the list, one server's page, and its form."""

from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from xfleet_contracts.errors import Refusal
from xfleet_controller.auth.rights import authorize
from xfleet_controller.errors import EditedMeanwhile
from xfleet_controller.orders.present import panel_view
from xfleet_controller.panel.forms import Fields, read_fields, refused, whole_number
from xfleet_controller.panel.views import MAX_PAGE, OptionView, PagingView
from xfleet_controller.panel.visit import UNPROCESSABLE, Visit
from xfleet_controller.servers import store
from xfleet_controller.servers.fields import ACTIVE
from xfleet_controller.servers.models import Server
from xfleet_controller.servers.naming import load_names
from xfleet_controller.servers.present import FORM_FIELDS, card_view, detail_view, form_view, stored_values, words_of
from xfleet_controller.servers.service import (
    ServerEdit,
    ServerView,
    edit_server,
    get_server,
    list_choices,
    list_servers,
)
from xfleet_controller.servers.views import ServerCardView, ServerDetailView, ServersPageView
from xfleet_controller.tasks.present import latest_tasks
from xfleet_controller.traffic.query import list_online

CHANGED = "servers-changed"
FORM = "servers/_form.html"
CONFLICT = 409
SWITCHES = frozenset({"enabled", "allow_private_destinations"})
MAX_CARDS = 12
"""More servers than this are shown as a table, unless somebody wants cards."""
PAGE_SIZE = 50
STATUSES = ("online", "stale", "offline", "pending", "drain", "maintenance", "disabled", "retiring")
STATUS_WORDS = {"stale": "No news", "pending": "Never seen", "drain": "Draining"}
CARDS, TABLE = "cards", "table"


@get("/servers", include_in_schema=False)
async def show_servers(
    visit: NamedDependency[Visit],
    search: FromQuery[str] = "",
    tag: FromQuery[str] = "",
    region: FromQuery[str] = "",
    status: FromQuery[str] = "",
    view: FromQuery[str] = "",
    page: FromQuery[int] = 1,
) -> Response[bytes]:
    """All servers, or those that match, with their live cards; trouble first."""
    search, page = search.strip()[:200], min(max(1, page), MAX_PAGE)
    status = status if status in STATUSES else ""
    rows, total = await list_servers(
        visit.context, visit.actor, search=search, tag=tag, region=region, status=status, page_size=MAX_PAGE
    )
    regions, tags = await list_choices(visit.context, visit.actor)
    cards = sorted(await cards_of(visit, rows), key=lambda card: card.order)
    as_table = view == TABLE or (view != CARDS and total > MAX_CARDS)
    shown = tuple(cards[(page - 1) * PAGE_SIZE : page * PAGE_SIZE])
    servers = ServersPageView(
        servers=shown,
        as_table=as_table,
        search=search,
        tag=tag,
        region=region,
        status=status,
        tags=_options(tags),
        regions=_options(regions),
        statuses=tuple(OptionView(value=word, label=STATUS_WORDS.get(word, word.capitalize())) for word in STATUSES),
        view=view if view in {CARDS, TABLE} else "",
        paging=PagingView(page=page, page_size=PAGE_SIZE, total=total),
        total=len(visit.shell.servers),
    )
    ids = ",".join(str(card.id) for card in shown)
    live_url = visit.live_url("servers-table" if as_table else "servers", ids=ids)
    return visit.page("servers/index.html", servers=servers, live_url=live_url)


@get("/servers/{server_id:int}", include_in_schema=False)
async def show_server(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[bytes]:
    """One server with everything that is known, and its latest tasks."""
    view = await get_server(visit.context, visit.actor, server_id)
    (card,) = await cards_of(visit, [view])
    tasks = await latest_tasks(visit.context, visit.actor, server_id=server_id)
    detail = await detail_of(visit, view, card)
    orders = await panel_view(visit.context, visit.actor, view.server)
    live_url = visit.live_url("server", ids=server_id)
    return visit.page("servers/show.html", server=card, detail=detail, orders=orders, tasks=tasks, live_url=live_url)


@get("/servers/{server_id:int}/edit", include_in_schema=False)
async def show_server_form(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[bytes]:
    """The form of one server."""
    authorize(visit.actor, "servers.write")
    view = await get_server(visit.context, visit.actor, server_id)
    return visit.dialog(FORM, "Edit server", server_form=form_view(view.server))


@post("/servers/{server_id:int}/edit", include_in_schema=False)
async def take_server_form(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[Any]:
    """Saves what the form says; what somebody else saved meanwhile is shown beside what was typed."""
    authorize(visit.actor, "servers.write")
    fields = await read_fields(visit.request)
    view = await get_server(visit.context, visit.actor, server_id)
    try:
        await edit_server(visit.context, visit.actor, server_id, _edit_of(fields, view.server))
    except Refusal as refusal:
        form = refused(fields.values(), refusal)
        theirs: dict[str, str] = {}
        if isinstance(refusal, EditedMeanwhile):
            theirs = {name: words_of(each["theirs"]) for name, each in refusal.changed.items()}
            form = msgspec.structs.replace(form, values=form.values | {"version": str(refusal.version)})
        server_form = form_view(view.server, form, theirs)
        status = CONFLICT if theirs else UNPROCESSABLE
        return visit.dialog(FORM, "Edit server", status=status, server_form=server_form)
    return visit.done(f"/servers/{server_id}", "Server saved", CHANGED)


@post("/servers/{server_id:int}/enable", include_in_schema=False)
async def enable(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[Any]:
    """Puts its inbounds and clients back."""
    await edit_server(visit.context, visit.actor, server_id, ServerEdit(enabled=True))
    return visit.done(f"/servers/{server_id}", "Server enabled", CHANGED)


@post("/servers/{server_id:int}/disable", include_in_schema=False)
async def disable(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[Any]:
    """Takes its inbounds and clients off it, but keeps everything."""
    await edit_server(visit.context, visit.actor, server_id, ServerEdit(enabled=False))
    return visit.done(f"/servers/{server_id}", "Server disabled", CHANGED)


@post("/servers/{server_id:int}/mode", include_in_schema=False)
async def take_mode(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[Any]:
    """Changes its mode."""
    fields = await read_fields(visit.request)
    mode = fields.text("mode") or ACTIVE
    await edit_server(visit.context, visit.actor, server_id, ServerEdit(mode=mode))
    return visit.done(f"/servers/{server_id}", f"Server mode: {mode}", CHANGED)


async def cards_of(visit: Visit, rows: Sequence[ServerView]) -> tuple[ServerCardView, ...]:
    """The live cards of servers; the only server there is also counts clients that moved bytes a moment ago."""
    context, presence, now = visit.context, visit.context.presence, visit.context.clock.now()
    async with context.database.read() as session:
        clients_counts = await store.count_clients(session)
        moving = await list_online(session, now) if visit.shell.single_server else set[int]()
    rates = visit.panel.rates
    cards = (card_view(row, presence, rates, clients_counts.get(row.server.id, 0), now) for row in rows)
    if not visit.shell.single_server:
        return tuple(cards)
    online_count = len(presence.online_clients() | moving)
    return tuple(msgspec.structs.replace(card, clients_online=online_count) if card.live else card for card in cards)


async def detail_of(visit: Visit, view: ServerView, card: ServerCardView) -> ServerDetailView:
    """What the page of one server shows beside its card."""
    keys = [(each["key"]["kind"], each["key"]["id"]) for each in view.revision.degraded]
    async with visit.context.database.read() as session:
        names = await load_names(session, keys)
    return detail_view(view, card, visit.context.presence, names)


def _edit_of(fields: Fields, server: Server) -> ServerEdit:
    """What the form changes; fields that stand as they are stored are left out, so that they cannot collide.

    A switch that is off is not posted at all, so switches count only where the whole form was sent, with its version.
    """
    given, version = fields.values(), whole_number(fields.text("version"))
    posted = {name: given.get(name, "") for name in FORM_FIELDS if name in given or (version and name in SWITCHES)}
    if "tags" in posted:
        posted["tags"] = ", ".join(_tags(posted["tags"]))
    if version in (None, server.version):
        stored = stored_values(server)
        posted = {name: text for name, text in posted.items() if text != stored[name]}
    values: dict[str, Any] = {**posted} | {name: bool(posted[name]) for name in SWITCHES & posted.keys()}
    if "tags" in values:
        values["tags"] = _tags(values["tags"])
    return ServerEdit(**values) if version is None else ServerEdit(**values, version=version)


def _tags(text: str) -> list[str]:
    return [tag.strip() for tag in text.split(",") if tag.strip()]


def _options(words: Sequence[str]) -> tuple[OptionView, ...]:
    return tuple(OptionView(value=word, label=word) for word in words)
