"""Servers with a browser."""

from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from xfleet_contracts.errors import Refusal
from xfleet_controller.auth.rights import authorize
from xfleet_controller.panel.forms import Fields, read_fields, refused
from xfleet_controller.panel.visit import UNPROCESSABLE, Visit
from xfleet_controller.servers import store
from xfleet_controller.servers.present import card_view, form_view
from xfleet_controller.servers.service import ServerEdit, ServerView, edit_server, get_server, list_servers
from xfleet_controller.servers.views import ServerCardView, ServerFormView, ServersPageView
from xfleet_controller.tasks.present import latest_tasks
from xfleet_controller.traffic.query import list_online


@get("/servers", include_in_schema=False)
async def show_servers(visit: NamedDependency[Visit]) -> Response[bytes]:
    """All servers with their live cards."""
    rows, _ = await list_servers(visit.context, visit.actor)
    servers = ServersPageView(servers=await cards_of(visit, rows))
    return visit.page("servers/index.html", servers=servers, live_url=visit.live_url("servers"))


@get("/servers/{server_id:int}", include_in_schema=False)
async def show_server(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[bytes]:
    """One server with its latest tasks."""
    view = await get_server(visit.context, visit.actor, server_id)
    (card,) = await cards_of(visit, [view])
    tasks = await latest_tasks(visit.context, visit.actor, server_id=server_id)
    live_url = visit.live_url("server", ids=server_id)
    return visit.page("servers/show.html", server=card, tasks=tasks, live_url=live_url)


@get("/servers/{server_id:int}/edit", include_in_schema=False)
async def show_server_form(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[bytes]:
    """The form of one server."""
    view = await get_server(visit.context, visit.actor, server_id)
    return visit.dialog("servers/_form.html", "Edit server", server_form=form_view(view))


@post("/servers/{server_id:int}/edit", include_in_schema=False)
async def take_server_form(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[Any]:
    """Saves what the form says."""
    authorize(visit.actor, "servers.write")
    fields = await read_fields(visit.request)
    view = await get_server(visit.context, visit.actor, server_id)
    try:
        await edit_server(visit.context, visit.actor, server_id, _edit_of(fields))
    except Refusal as refusal:
        form = refused(fields.values(), refusal)
        server_form = ServerFormView(id=server_id, slug=view.server.slug, form=form)
        return visit.dialog("servers/_form.html", "Edit server", status=UNPROCESSABLE, server_form=server_form)
    return visit.done("/servers", "Server saved", "servers-changed")


async def cards_of(visit: Visit, rows: Sequence[ServerView]) -> tuple[ServerCardView, ...]:
    """The live cards of servers; the only server there is also counts clients that moved bytes a moment ago."""
    context, presence = visit.context, visit.context.presence
    async with context.database.read() as session:
        clients_counts = await store.count_clients(session)
        moving = await list_online(session, context.clock.now()) if visit.shell.single_server else set[int]()
    cards = (card_view(row, presence, visit.panel.rates, clients_counts.get(row.server.id, 0)) for row in rows)
    if not visit.shell.single_server:
        return tuple(cards)
    online_count = len(presence.online_clients() | moving)
    return tuple(msgspec.structs.replace(card, clients_online=online_count) if card.live else card for card in cards)


def _edit_of(fields: Fields) -> ServerEdit:
    return ServerEdit(
        name=fields.text("name"),
        public_address=fields.text("public_address"),
        notes=fields.text("notes"),
        tags=[tag.strip() for tag in fields.text("tags").split(",") if tag.strip()],
        allow_private_destinations=fields.is_on("allow_private_destinations"),
    )
