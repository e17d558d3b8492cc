"""Clients with a browser."""

import asyncio
from typing import Annotated, Any

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Redirect

from xfleet_contracts.errors import Refusal
from xfleet_controller.auth.rights import authorize
from xfleet_controller.clients import forms
from xfleet_controller.clients.present import detail_view, row_view
from xfleet_controller.clients.service import (
    STATES,
    ClientEdit,
    ClientView,
    create_client,
    delete_client,
    edit_client,
    get_client,
    list_clients,
)
from xfleet_controller.clients.views import ClientDeleteView, ClientFormView, ClientsPageView
from xfleet_controller.edge import public_base
from xfleet_controller.inbounds.web import inbound_rows
from xfleet_controller.panel.forms import Fields, read_fields, refused_later, whole_number
from xfleet_controller.panel.responses import is_htmx
from xfleet_controller.panel.views import MAX_PAGE, FormView, OptionView, PagingView
from xfleet_controller.panel.visit import UNPROCESSABLE, Visit, triggers
from xfleet_controller.subscriptions.links import list_withheld, subscription_path

CHANGED = "clients-changed"
FORM = "clients/_form.html"
PAGE_SIZE = 25
StateFilter = Annotated[str, QueryParameter(name="state")]


@get("/clients", include_in_schema=False)
async def show_clients(
    visit: NamedDependency[Visit],
    search: FromQuery[str] = "",
    wanted_state: StateFilter = "",
    inbound: FromQuery[str] = "",
    page: FromQuery[int] = 1,
) -> Response[bytes]:
    """The clients by name or comment, state and inbound."""
    search, page = search.strip()[:200], min(max(1, page), MAX_PAGE)
    state = wanted_state if wanted_state in STATES else ""
    inbound_id = whole_number(inbound)
    views, total = await list_clients(
        visit.context,
        visit.actor,
        search=search,
        state=state,
        inbound_id=inbound_id,
        server_id=visit.shell.server_id,
        sort="-created_at",
        page=page,
        page_size=PAGE_SIZE,
    )
    titles = await inbound_titles(visit)
    clients = ClientsPageView(
        rows=tuple(row_view(view, titles) for view in views),
        paging=PagingView(page=page, page_size=PAGE_SIZE, total=total),
        states=tuple(OptionView(value=word, label=word.capitalize()) for word in STATES),
        search=search,
        state=state,
        inbound=str(inbound_id or ""),
        inbound_title=titles.get(inbound_id or 0, ""),
        has_inbound=bool(titles),
    )
    ids = ",".join(str(view.row.id) for view in views)
    return visit.page("clients/index.html", clients=clients, live_url=visit.live_url("clients", ids=ids))


@get("/clients/new", include_in_schema=False)
async def show_new_form(visit: NamedDependency[Visit]) -> Response[bytes]:
    """The empty form; with one inbound it is chosen already."""
    authorize(visit.actor, "clients.write")
    titles = await inbound_titles(visit)
    chosen = set(titles) if len(titles) == 1 else set[int]()
    return await _dialog(visit, None, FormView(values=forms.new_values()), chosen)


@post("/clients/new", include_in_schema=False)
async def take_new_form(visit: NamedDependency[Visit]) -> Response[Any]:
    """Adds the client and shows what to hand over."""
    authorize(visit.actor, "clients.write")
    fields = await read_fields(visit.request)
    try:
        view, _ = await create_client(visit.context, visit.actor, forms.new_client(fields))
    except Refusal as refusal:
        return await _again(visit, None, fields, refusal)
    if not is_htmx(visit.request.headers):
        return Redirect(visit.url(f"/clients/{view.row.id}"), status_code=303)
    response = await _detail(visit, view)
    response.headers["hx-trigger"] = triggers(f"Client {view.row.name} added", CHANGED)
    return response


@get("/clients/{client_id:int}", include_in_schema=False)
async def show_client(visit: NamedDependency[Visit], client_id: FromPath[int]) -> Response[bytes]:
    """One client with QR codes and links."""
    return await _detail(visit, await get_client(visit.context, visit.actor, client_id))


@get("/clients/{client_id:int}/edit", include_in_schema=False)
async def show_form(visit: NamedDependency[Visit], client_id: FromPath[int]) -> Response[bytes]:
    """The form of one client."""
    authorize(visit.actor, "clients.write")
    view = await get_client(visit.context, visit.actor, client_id)
    return await _dialog(visit, client_id, FormView(values=forms.stored_values(view.row)), set(view.inbound_ids))


@post("/clients/{client_id:int}/edit", include_in_schema=False)
async def take_form(visit: NamedDependency[Visit], client_id: FromPath[int]) -> Response[Any]:
    """Saves what the form says."""
    authorize(visit.actor, "clients.write")
    fields = await read_fields(visit.request)
    before = await get_client(visit.context, visit.actor, client_id)
    try:
        await edit_client(visit.context, visit.actor, client_id, forms.edited_client(fields, before.row))
    except Refusal as refusal:
        return await _again(visit, client_id, fields, refusal)
    return visit.done("/clients", "Client saved", CHANGED)


@post("/clients/{client_id:int}/enable", include_in_schema=False)
async def enable(visit: NamedDependency[Visit], client_id: FromPath[int]) -> Response[Any]:
    """Lets the client connect again."""
    await edit_client(visit.context, visit.actor, client_id, ClientEdit(enabled=True))
    return visit.done("/clients", "Client enabled", CHANGED)


@post("/clients/{client_id:int}/disable", include_in_schema=False)
async def disable(visit: NamedDependency[Visit], client_id: FromPath[int]) -> Response[Any]:
    """Cuts the client off, but keeps it."""
    await edit_client(visit.context, visit.actor, client_id, ClientEdit(enabled=False))
    return visit.done("/clients", "Client disabled", CHANGED)


@get("/clients/{client_id:int}/delete", include_in_schema=False)
async def show_delete(visit: NamedDependency[Visit], client_id: FromPath[int]) -> Response[bytes]:
    """Asks before deleting."""
    authorize(visit.actor, "clients.write")
    view = await get_client(visit.context, visit.actor, client_id)
    return visit.dialog("clients/_delete.html", "Delete client", deletion=ClientDeleteView(row=row_view(view, {})))


@post("/clients/{client_id:int}/delete", include_in_schema=False)
async def take_delete(visit: NamedDependency[Visit], client_id: FromPath[int]) -> Response[Any]:
    """Deletes the client everywhere."""
    await delete_client(visit.context, visit.actor, client_id)
    return visit.done("/clients", "Client deleted", CHANGED)


async def inbound_titles(visit: Visit) -> dict[int, str]:
    """What to call each inbound, by id."""
    return {row.id: row.title for row in await inbound_rows(visit)}


async def _detail(visit: Visit, view: ClientView) -> Response[bytes]:
    base = public_base(visit.request, visit.context)
    url = f"{base}{subscription_path(view.row.sub_id)}" if view.links_shown else ""
    client = await asyncio.to_thread(detail_view, view, url, await inbound_titles(visit))
    async with visit.context.database.read() as session:
        withheld = await list_withheld(session, view.row.id)
    client = msgspec.structs.replace(client, withheld_servers=", ".join(withheld))
    return visit.dialog("clients/_detail.html", view.row.name, client=client)


async def _again(visit: Visit, client_id: int | None, fields: Fields, refusal: Refusal) -> Response[bytes]:
    form = refused_later(fields.values() | {"inbound_ids": ""}, refusal, names=forms.FIELD_NAMES)
    chosen = {number for each in fields.every("inbound_ids") if (number := whole_number(each)) is not None}
    return await _dialog(visit, client_id, form, chosen, status=UNPROCESSABLE)


async def _dialog(
    visit: Visit, client_id: int | None, form: FormView, chosen: set[int], *, status: int = 200
) -> Response[bytes]:
    rows = await inbound_rows(visit)
    options = {
        "inbound_ids": forms.inbound_options(rows, chosen, single_server=visit.shell.single_server),
        "quota_unit": forms.unit_options(form.value("quota_unit")),
    }
    whole = FormView(values=form.values, errors=form.errors, options=options)
    return visit.dialog(FORM, "Client", status=status, client_form=ClientFormView(id=client_id, form=whole))
