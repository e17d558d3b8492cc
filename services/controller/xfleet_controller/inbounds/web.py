"""Inbounds with a browser."""

import os
from typing import Any

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from xfleet_contracts.errors import Refusal
from xfleet_controller.auth.rights import authorize
from xfleet_controller.errors import EditedMeanwhile
from xfleet_controller.inbounds import forms
from xfleet_controller.inbounds.present import row_view
from xfleet_controller.inbounds.service import (
    InboundEdit,
    create_inbound,
    delete_inbound,
    edit_inbound,
    get_inbound,
    list_inbounds,
)
from xfleet_controller.inbounds.views import InboundDeleteView, InboundFormView, InboundRowView, InboundsPageView
from xfleet_controller.panel.forms import Fields, read_fields, refused_later
from xfleet_controller.panel.store import count_online_by_inbound, server_names
from xfleet_controller.panel.views import FormView
from xfleet_controller.panel.visit import UNPROCESSABLE, Visit
from xfleet_controller.servers.service import LOCAL, list_servers
from xfleet_xraykit.protocols import inbound_protocols

CHANGED = "inbounds-changed"
FORM = "inbounds/_form.html"


@get("/inbounds", include_in_schema=False)
async def show_inbounds(visit: NamedDependency[Visit]) -> Response[bytes]:
    """All inbounds."""
    rows = await inbound_rows(visit, server_id=visit.shell.server_id)
    async with visit.context.database.read() as session:
        has_server = bool(await server_names(session))
    page = InboundsPageView(rows=rows, has_server=has_server)
    return visit.page("inbounds/index.html", inbounds=page, live_url=visit.live_url("inbounds"))


@get("/inbounds/new", include_in_schema=False)
async def show_new_form(visit: NamedDependency[Visit]) -> Response[bytes]:
    """The empty form, with good defaults filled in."""
    authorize(visit.actor, "inbounds.write")
    servers, _ = await list_servers(visit.context, visit.actor)
    inbounds, _ = await list_inbounds(visit.context, visit.actor)
    wanted = [view.server for view in servers if visit.shell.server_id in (None, view.server.id)]
    server = wanted[0] if wanted else None
    server_id = server.id if server else 0
    taken = {view.row.port for view in inbounds if view.row.server_id == server_id}
    low_ports = server is not None and (server.slug != LOCAL or os.geteuid() == 0)
    port = forms.suggest_port(taken | {visit.context.settings.port}, low_ports=low_ports)
    return await _dialog(visit, None, FormView(values=forms.new_values(server_id, port)))


@post("/inbounds/new", include_in_schema=False)
async def take_new_form(visit: NamedDependency[Visit]) -> Response[Any]:
    """Adds the inbound."""
    authorize(visit.actor, "inbounds.write")
    fields = await read_fields(visit.request)
    try:
        view, _ = await create_inbound(visit.context, visit.actor, forms.new_inbound(fields))
    except Refusal as refusal:
        return await _again(visit, None, fields, refusal)
    return visit.done("/inbounds", f"Inbound {view.row.remark or view.row.port} added", CHANGED)


@get("/inbounds/{inbound_id:int}/edit", include_in_schema=False)
async def show_form(visit: NamedDependency[Visit], inbound_id: FromPath[int]) -> Response[bytes]:
    """The form of one inbound."""
    authorize(visit.actor, "inbounds.write")
    view = await get_inbound(visit.context, visit.actor, inbound_id)
    row = view.row
    values = forms.stored_values(
        view.body, server_id=row.server_id, remark=row.remark, enabled=row.enabled, version=row.version
    )
    return await _dialog(visit, inbound_id, FormView(values=values))


@post("/inbounds/{inbound_id:int}/edit", include_in_schema=False)
async def take_form(visit: NamedDependency[Visit], inbound_id: FromPath[int]) -> Response[Any]:
    """Saves what the form says."""
    authorize(visit.actor, "inbounds.write")
    fields = await read_fields(visit.request)
    before = await get_inbound(visit.context, visit.actor, inbound_id)
    try:
        await edit_inbound(visit.context, visit.actor, inbound_id, forms.edited_inbound(fields, before.body))
    except Refusal as refusal:
        return await _again(visit, inbound_id, fields, refusal)
    return visit.done("/inbounds", "Inbound saved", CHANGED)


@post("/inbounds/{inbound_id:int}/enable", include_in_schema=False)
async def enable(visit: NamedDependency[Visit], inbound_id: FromPath[int]) -> Response[Any]:
    """Lets it accept connections again."""
    await edit_inbound(visit.context, visit.actor, inbound_id, InboundEdit(enabled=True))
    return visit.done("/inbounds", "Inbound enabled", CHANGED)


@post("/inbounds/{inbound_id:int}/disable", include_in_schema=False)
async def disable(visit: NamedDependency[Visit], inbound_id: FromPath[int]) -> Response[Any]:
    """Takes it off its server, but keeps it."""
    await edit_inbound(visit.context, visit.actor, inbound_id, InboundEdit(enabled=False))
    return visit.done("/inbounds", "Inbound disabled", CHANGED)


@get("/inbounds/{inbound_id:int}/delete", include_in_schema=False)
async def show_delete(visit: NamedDependency[Visit], inbound_id: FromPath[int]) -> Response[bytes]:
    """Asks before deleting."""
    authorize(visit.actor, "inbounds.write")
    view = await get_inbound(visit.context, visit.actor, inbound_id)
    deletion = InboundDeleteView(row=row_view(view, {}, {}))
    return visit.dialog("inbounds/_delete.html", "Delete inbound", deletion=deletion)


@post("/inbounds/{inbound_id:int}/delete", include_in_schema=False)
async def take_delete(visit: NamedDependency[Visit], inbound_id: FromPath[int]) -> Response[Any]:
    """Deletes it everywhere."""
    await delete_inbound(visit.context, visit.actor, inbound_id)
    return visit.done("/inbounds", "Inbound deleted", CHANGED)


async def inbound_rows(visit: Visit, *, server_id: int | None = None) -> tuple[InboundRowView, ...]:
    """The lines of the list, of one server alone when it is given."""
    views, _ = await list_inbounds(visit.context, visit.actor, server_id=server_id)
    servers, _ = await list_servers(visit.context, visit.actor)
    by_id = {server.server.id: server for server in servers}
    async with visit.context.database.read() as session:
        online = await count_online_by_inbound(session, visit.context.presence.online_clients())
    return tuple(row_view(view, by_id, online) for view in views)


async def _again(visit: Visit, inbound_id: int | None, fields: Fields, refusal: Refusal) -> Response[bytes]:
    values = fields.values()
    if inbound_id is not None and isinstance(refusal, EditedMeanwhile) and forms.is_json_untouched(fields):
        values |= forms.json_values((await get_inbound(visit.context, visit.actor, inbound_id)).body)
    form = refused_later(values, refusal, names=forms.FIELD_NAMES)
    return await _dialog(visit, inbound_id, form, status=UNPROCESSABLE)


async def _dialog(visit: Visit, inbound_id: int | None, form: FormView, *, status: int = 200) -> Response[bytes]:
    async with visit.context.database.read() as session:
        servers = await server_names(session)
    options = forms.form_options(servers, sorted(inbound_protocols()))
    whole = FormView(values=form.values, errors=form.errors, options=options)
    view = InboundFormView(id=inbound_id, form=whole, advanced=forms.opens_advanced(form))
    return visit.dialog(FORM, "Inbound", status=status, inbound_form=view)
