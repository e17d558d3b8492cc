"""Dialogs around a server's life with a browser: adding it, joining its machine, replacing that, deleting it."""

from datetime import UTC, datetime
from typing import Any

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Redirect

from xfleet_contracts.errors import Refusal
from xfleet_controller.auth.rights import authorize
from xfleet_controller.edge import public_base
from xfleet_controller.fleet import service as fleet_service
from xfleet_controller.fleet import store as fleet_store
from xfleet_controller.fleet.certificates import GOOD, REVOKED, list_identities
from xfleet_controller.fleet.service import SUSPENDED
from xfleet_controller.fleet.watch import lift_suspension
from xfleet_controller.joining.service import BrokerNotPublic, PanelNotPublic, make_join_line
from xfleet_controller.panel.forms import Fields, read_fields, refused
from xfleet_controller.panel.responses import is_htmx
from xfleet_controller.panel.views import FormView
from xfleet_controller.panel.visit import UNPROCESSABLE, Visit
from xfleet_controller.servers import joins, removal
from xfleet_controller.servers.presence import ONLINE
from xfleet_controller.servers.service import ServerNew, ServerView, get_server, register_server
from xfleet_controller.servers.views import (
    BrokerFormView,
    DialView,
    IdentitiesView,
    IdentityView,
    JoinView,
    LossView,
    ReplaceView,
    ServerDeleteView,
    ServerFormView,
    WaitingView,
)
from xfleet_controller.servers.web import CHANGED

CONFLICT = 409
MAX_IDENTITIES = 30


@get("/servers/new", include_in_schema=False)
async def show_new_form(visit: NamedDependency[Visit]) -> Response[bytes]:
    """The first step: what the server is called."""
    authorize(visit.actor, "servers.write")
    return visit.dialog("servers/_new.html", "Add server", server_form=_new_form(FormView(values={})))


@post("/servers/new", include_in_schema=False)
async def take_new_form(visit: NamedDependency[Visit]) -> Response[Any]:
    """Adds the server and goes on to the next step."""
    authorize(visit.actor, "servers.write")
    fields = await read_fields(visit.request)
    new = ServerNew(
        name=fields.text("name"),
        public_address=fields.text("public_address"),
        region=fields.text("region"),
        tags=[tag.strip() for tag in fields.text("tags").split(",") if tag.strip()],
        notes=fields.text("notes"),
        slug=fields.text("slug"),
    )
    try:
        view = await register_server(visit.context, visit.actor, new)
    except Refusal as refusal:
        form = refused(fields.values(), refusal)
        return visit.dialog("servers/_new.html", "Add server", status=UNPROCESSABLE, server_form=_new_form(form))
    if not is_htmx(visit.request.headers):
        return Redirect(visit.url(f"/servers/{view.server.id}/join"), status_code=303)
    answer = await _next_step(visit, view, Fields([]))
    answer.headers["hx-trigger"] = f'{{"{CHANGED}": {{}}}}'
    return answer


@get("/servers/{server_id:int}/join", include_in_schema=False)
async def show_join(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[bytes]:
    """The step that is next: the broker's addresses, or the button that makes the line."""
    authorize(visit.actor, "fleet.enroll")
    view = await get_server(visit.context, visit.actor, server_id)
    reach = await joins.find_reach(visit.context, visit.actor)
    if not reach.usable:
        return _broker_step(visit, view, reach, replaces=False)
    replace = ReplaceView(id=server_id, name=view.server.name, address="", form=FormView(values={}))
    return visit.dialog("servers/_ready.html", "Join a machine", replace=replace)


@post("/servers/{server_id:int}/join", include_in_schema=False)
async def take_join(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[Any]:
    """Makes the line and waits for its machine."""
    authorize(visit.actor, "fleet.enroll")
    fields = await read_fields(visit.request)
    return await _next_step(visit, await get_server(visit.context, visit.actor, server_id), fields)


@post("/servers/{server_id:int}/join/broker", include_in_schema=False)
async def take_broker(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[Any]:
    """Says where agents elsewhere find the broker, opens its listener, and tries it."""
    authorize(visit.actor, "fleet.enroll")
    fields = await read_fields(visit.request)
    view = await get_server(visit.context, visit.actor, server_id)
    replaces = fields.is_on("replaces")
    try:
        reach = await joins.set_addresses(visit.context, visit.actor, fields.words("broker_urls"))
    except Refusal as refusal:
        known = await joins.find_reach(visit.context, visit.actor)
        form = refused(fields.values(), refusal, names={"urls": "broker_urls", "url": "broker_urls"})
        return _broker_step(visit, view, known, replaces=replaces, form=form, status=UNPROCESSABLE)
    if not reach.reachable and not fields.is_on("anyway"):
        return _broker_step(visit, view, reach, replaces=replaces, status=CONFLICT)
    return await _next_step(visit, view, fields)


@get("/servers/{server_id:int}/replace", include_in_schema=False)
async def show_replace(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[bytes]:
    """Says what replacing a machine means, and asks for the new one's address."""
    authorize(visit.actor, "fleet.enroll")
    view = await get_server(visit.context, visit.actor, server_id)
    return visit.dialog("servers/_replace.html", "Replace machine", replace=_replace_view(view, FormView(values={})))


@get("/servers/{server_id:int}/delete", include_in_schema=False)
async def show_delete(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[bytes]:
    """Asks before deleting, with everything that goes."""
    authorize(visit.actor, "servers.write")
    return visit.dialog("servers/_delete.html", "Delete server", deletion=await _deletion(visit, server_id))


@post("/servers/{server_id:int}/delete", include_in_schema=False)
async def take_delete(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[Any]:
    """Begins to take it away, or takes it away by force."""
    authorize(visit.actor, "servers.write")
    fields = await read_fields(visit.request)
    try:
        done = await removal.delete_server(
            visit.context,
            visit.actor,
            server_id,
            force=fields.is_on("force"),
            with_inbounds=fields.is_on("with_inbounds"),
        )
    except removal.ServerInUse as refusal:
        deletion = await _deletion(visit, server_id, error=refusal.text)
        return visit.dialog("servers/_delete.html", "Delete server", status=UNPROCESSABLE, deletion=deletion)
    word = "Server deleted" if done.state == removal.DELETED else "Server is being taken down"
    return visit.done("/servers", word, CHANGED)


@get("/servers/{server_id:int}/identities", include_in_schema=False)
async def show_identities(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[bytes]:
    """What it signs in with, and taking that back."""
    view = await get_server(visit.context, visit.actor, server_id)
    rows = await list_identities(visit.context, visit.actor, server_id)
    names = ("nkey", "source", "status", "reason", "issued_at", "expires_at")
    identities = IdentitiesView(
        id=server_id,
        name=view.server.name,
        rows=tuple(IdentityView(**{name: getattr(row, name) for name in names}) for row in rows[:MAX_IDENTITIES]),
        may_revoke=visit.shell.may("fleet.revoke") and any(row.status == GOOD for row in rows),
        may_lift=visit.shell.may("fleet.revoke")
        and any(row.status == REVOKED and row.reason == SUSPENDED for row in rows),
    )
    return visit.dialog("servers/_identities.html", "Identities", identities=identities)


@post("/servers/{server_id:int}/revoke", include_in_schema=False)
async def take_revocation(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[Any]:
    """Cuts it off until a machine joins anew."""
    authorize(visit.actor, "fleet.revoke")
    fields = await read_fields(visit.request)
    await fleet_service.revoke_server(visit.context, visit.actor, server_id, fields.text("reason"))
    return visit.done(f"/servers/{server_id}", "Server revoked", CHANGED)


@post("/servers/{server_id:int}/lift-suspension", include_in_schema=False)
async def take_lift(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[Any]:
    """Lets it back after the watch on connections suspended it."""
    authorize(visit.actor, "fleet.revoke")
    await lift_suspension(visit.context, visit.actor, server_id)
    return visit.done(f"/servers/{server_id}", "Suspension lifted", CHANGED)


async def waiting_view(visit: Visit, server_id: int, since_s: int) -> WaitingView:
    """Whether a machine has come since the line was made."""
    view, now = await get_server(visit.context, visit.actor, server_id), visit.context.clock.now()
    since = datetime.fromtimestamp(min(max(since_s, 0), int(now.timestamp())), UTC)
    async with visit.context.database.read() as session:
        enrolled_at = await fleet_store.find_last_enrolled(session, server_id)
    if enrolled_at is None or enrolled_at < since:
        expired = (now - since).total_seconds() > joins.LIFETIME_S
        return WaitingView(id=server_id, state="waiting", expired=expired)
    seen = visit.context.presence.get(view.server.slug)
    is_heard = view.status == ONLINE and seen is not None and seen.received_at_ms / 1000 >= enrolled_at.timestamp()
    version = seen.beat.agent_version if seen is not None and is_heard else ""
    return WaitingView(id=server_id, state="online" if is_heard else "enrolled", agent_version=version)


async def _next_step(visit: Visit, view: ServerView, fields: Fields) -> Response[Any]:
    """The line; before it, the step that makes the broker reachable."""
    replaces = fields.is_on("replaces")
    try:
        join = await make_join_line(
            visit.context,
            visit.actor,
            view.server.id,
            panel_url=public_base(visit.request, visit.context),
            replaces=replaces,
            public_address=fields.text("public_address") if replaces else "",
            anywhere=fields.is_on("anyway"),
        )
    except BrokerNotPublic as refusal:
        reach = await joins.find_reach(visit.context, visit.actor)
        form = FormView(values={"broker_urls": reach.proposal}, errors={"": refusal.text})
        return _broker_step(visit, view, reach, replaces=replaces, form=form)
    except PanelNotPublic as refusal:
        replace = _replace_view(view, refused(fields.values(), refusal), here_only=True)
        template = "servers/_replace.html" if replaces else "servers/_ready.html"
        return visit.dialog(template, "Join a machine", status=UNPROCESSABLE, replace=replace)
    except Refusal as refusal:
        form = refused(fields.values(), refusal)
        template = "servers/_replace.html" if replaces else "servers/_ready.html"
        return visit.dialog(template, "Join a machine", status=UNPROCESSABLE, replace=_replace_view(view, form))
    since_s = int(visit.context.clock.now().timestamp())
    shown = JoinView(
        id=view.server.id,
        name=view.server.name,
        line=join.line,
        expires_at=join.expires_at,
        replaces=replaces,
        live_url=visit.live_url("joining", ids=f"{view.server.id},{since_s}"),
        waiting=WaitingView(id=view.server.id, state="waiting"),
    )
    return visit.dialog("servers/_join.html", "Join a machine", join=shown)


def _broker_step(
    visit: Visit,
    view: ServerView,
    reach: joins.Reach,
    *,
    replaces: bool,
    form: FormView | None = None,
    status: int = 200,
) -> Response[bytes]:
    broker = BrokerFormView(
        id=view.server.id,
        name=view.server.name,
        form=form or FormView(values={"broker_urls": reach.proposal}),
        replaces=replaces,
        listens_here=reach.listens_here,
        dials=tuple(DialView(url=dial.url, ok=dial.ok and not dial.code, reason=dial.reason) for dial in reach.dials),
    )
    return visit.dialog("servers/_broker.html", "Reach the broker", status=status, broker=broker)


async def _deletion(visit: Visit, server_id: int, *, error: str = "") -> ServerDeleteView:
    view = await get_server(visit.context, visit.actor, server_id)
    losses = await removal.list_losses(visit.context, visit.actor, server_id)
    async with visit.context.database.read() as session:
        counts = await fleet_store.count_identities(session, [server_id], visit.context.clock.now())
    return ServerDeleteView(
        id=server_id,
        name=view.server.name,
        status=view.status,
        retiring=view.server.retiring_at is not None,
        joined=server_id in counts,
        losses=tuple(
            LossView(title=each.remark or f":{each.port}", port=each.port, clients_count=each.clients_count)
            for each in losses
        ),
        last_seen_at=view.server.last_seen_at,
        warning=removal.MAY_KEEP_RUNNING,
        error=error,
    )


def _replace_view(view: ServerView, form: FormView, *, here_only: bool = False) -> ReplaceView:
    server = view.server
    address = server.public_address or server.reported_address
    return ReplaceView(id=server.id, name=server.name, address=address, form=form, here_only=here_only)


def _new_form(form: FormView) -> ServerFormView:
    return ServerFormView(id=None, slug="", form=form)
