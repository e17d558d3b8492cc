"""Admins with a browser, and the page behind an invitation."""

from typing import Any

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Redirect

from xfleet_contracts.errors import Refusal
from xfleet_controller.admins import service
from xfleet_controller.admins.api import invite_url
from xfleet_controller.admins.service import AdminEdit, AdminNew, AdminView, Invite
from xfleet_controller.admins.views import AdminFormView, AdminRowView, AdminsPageView, InvitedView, InviteView
from xfleet_controller.auth.passwords import MIN_LENGTH
from xfleet_controller.auth.rights import ROLES, authorize
from xfleet_controller.edge import client_address, public_base, refuse_cross_site
from xfleet_controller.errors import invalid
from xfleet_controller.panel.forms import Fields, read_fields, refused
from xfleet_controller.panel.responses import PAGE_HEADERS, html
from xfleet_controller.panel.views import FormView, OptionView
from xfleet_controller.panel.visit import UNPROCESSABLE, Panel, Visit, triggers

CHANGED = "admins-changed"
PATH = "/settings/admins"
LINK, PASSWORD = "link", "password"
ROLE_HINTS = {
    "owner": "Everything, admins and backups too.",
    "operator": "Servers, inbounds, clients and logs.",
    "support": "Clients; sees servers and inbounds without keys.",
    "read-only": "Looks, and changes nothing.",
}
WAYS = (
    OptionView(value=LINK, label="One-time link", hint="You send it; the admin chooses a password. Lasts 24 hours."),
    OptionView(value=PASSWORD, label="Password", hint="You choose it and tell it."),
)


@get("/settings/admins", include_in_schema=False)
async def show_admins(visit: NamedDependency[Visit]) -> Response[bytes]:
    """All admins."""
    rows = tuple(_row(view, visit) for view in await service.list_admins(visit.context, visit.actor))
    return visit.page("admins/index.html", admins=AdminsPageView(rows=rows))


@get("/settings/admins/new", include_in_schema=False)
async def show_new_form(visit: NamedDependency[Visit]) -> Response[bytes]:
    """The empty form."""
    authorize(visit.actor, "admins.write")
    return _form(visit, None, FormView(values={"name": "", "role": "operator", "way": LINK}))


@post("/settings/admins/new", include_in_schema=False)
async def take_new_form(visit: NamedDependency[Visit]) -> Response[Any]:
    """Adds the admin; a link is shown once."""
    authorize(visit.actor, "admins.write")
    fields = await read_fields(visit.request)
    try:
        password = _password(fields)
        new = AdminNew(name=fields.text("name"), role=fields.text("role"), password=password)
        view, invite = await service.create_admin(visit.context, visit.actor, new)
    except Refusal as refusal:
        return _again(visit, None, fields, refusal)
    return _made(visit, view, invite, f"Admin {view.row.name} added")


@get("/settings/admins/{admin_id:int}/edit", include_in_schema=False)
async def show_form(visit: NamedDependency[Visit], admin_id: FromPath[int]) -> Response[bytes]:
    """The form of one admin."""
    authorize(visit.actor, "admins.write")
    view = await service.get_admin(visit.context, visit.actor, admin_id)
    values = {"role": view.row.role, "enabled": "on" if view.row.enabled else ""}
    return _form(visit, _row(view, visit), FormView(values=values))


@post("/settings/admins/{admin_id:int}/edit", include_in_schema=False)
async def take_form(visit: NamedDependency[Visit], admin_id: FromPath[int]) -> Response[Any]:
    """Saves role and whether the admin may sign in."""
    fields = await read_fields(visit.request)
    authorize(visit.actor, "admins.write")
    view = await service.get_admin(visit.context, visit.actor, admin_id)
    try:
        edit = AdminEdit(role=fields.text("role"), enabled=fields.is_on("enabled"))
        await service.edit_admin(visit.context, visit.actor, admin_id, edit)
    except Refusal as refusal:
        return _again(visit, _row(view, visit), fields, refusal)
    return visit.done(PATH, f"Admin {view.row.name} saved", CHANGED)


@get("/settings/admins/{admin_id:int}/password", include_in_schema=False)
async def show_reset(visit: NamedDependency[Visit], admin_id: FromPath[int]) -> Response[bytes]:
    """Asks how the admin gets another password."""
    authorize(visit.actor, "admins.write")
    view = await service.get_admin(visit.context, visit.actor, admin_id)
    return _form(visit, _row(view, visit), FormView(values={"way": LINK}), template="admins/_reset.html")


@post("/settings/admins/{admin_id:int}/password", include_in_schema=False)
async def take_reset(visit: NamedDependency[Visit], admin_id: FromPath[int]) -> Response[Any]:
    """Ends the old password; a link is shown once."""
    fields = await read_fields(visit.request)
    authorize(visit.actor, "admins.write")
    view = await service.get_admin(visit.context, visit.actor, admin_id)
    try:
        invite = await service.reset_password(visit.context, visit.actor, admin_id, _password(fields))
    except Refusal as refusal:
        return _again(visit, _row(view, visit), fields, refusal, template="admins/_reset.html")
    return _made(visit, view, invite, f"Password of {view.row.name} reset")


@post("/settings/admins/{admin_id:int}/totp", include_in_schema=False)
async def take_totp_away(visit: NamedDependency[Visit], admin_id: FromPath[int]) -> Response[Any]:
    """Removes the second factor of who lost the phone."""
    await service.remove_totp(visit.context, visit.actor, admin_id)
    return visit.done(PATH, "Second factor removed", CHANGED)


@get("/settings/admins/{admin_id:int}/delete", include_in_schema=False)
async def show_delete(visit: NamedDependency[Visit], admin_id: FromPath[int]) -> Response[bytes]:
    """Asks before deleting."""
    authorize(visit.actor, "admins.write")
    view = await service.get_admin(visit.context, visit.actor, admin_id)
    return _form(visit, _row(view, visit), FormView(values={}), template="admins/_delete.html")


@post("/settings/admins/{admin_id:int}/delete", include_in_schema=False)
async def take_delete(visit: NamedDependency[Visit], admin_id: FromPath[int]) -> Response[Any]:
    """Deletes the admin."""
    authorize(visit.actor, "admins.write")
    view = await service.get_admin(visit.context, visit.actor, admin_id)
    try:
        await service.delete_admin(visit.context, visit.actor, admin_id)
    except service.LastOwner as refusal:
        form = FormView(values={}, errors={"": refusal.text})
        return _form(visit, _row(view, visit), form, status=UNPROCESSABLE, template="admins/_delete.html")
    return visit.done(PATH, f"Admin {view.row.name} deleted", CHANGED)


@get("/invite/{token:str}", include_in_schema=False)
async def show_invite(panel: NamedDependency[Panel], token: FromPath[str]) -> Response[bytes]:
    """Where an admin who was sent a link chooses a password; looking does not use it up."""
    name = await service.name_of_invite(panel.context, token)
    return _invited(panel, name, token, FormView(values={}))


@post("/invite", include_in_schema=False)
async def take_invite(request: Request[Any, Any, Any], panel: NamedDependency[Panel]) -> Response[Any]:
    """Takes the password; from now on the link is worth nothing."""
    refuse_cross_site(request)
    fields = await read_fields(request)
    token, password = fields.text("token"), fields.secret("password")
    name = await service.name_of_invite(panel.context, token)
    try:
        if password != fields.secret("repeat_password"):
            raise invalid("repeat_password", "The two passwords differ.", "differs")
        await service.accept_invite(panel.context, token, password, address=client_address(request))
    except service.InviteOver:
        raise
    except Refusal as refusal:
        form = refused({"password": "", "repeat_password": ""}, refusal)
        return _invited(panel, name, token, form, status=UNPROCESSABLE)
    return Redirect(panel.templates.url("/login"), status_code=303, headers=PAGE_HEADERS)


def _invited(panel: Panel, name: str, token: str, form: FormView, *, status: int = 200) -> Response[bytes]:
    invited = InvitedView(name=name, token=token, form=form, password_length=MIN_LENGTH)
    return html(panel.templates.render("admins/invited.html", invited=invited), status=status)


def _row(view: AdminView, visit: Visit) -> AdminRowView:
    row = view.row
    return AdminRowView(
        id=row.id,
        name=row.name,
        role=row.role,
        enabled=row.enabled,
        totp=view.has_second_factor,
        invited=row.invite_sha256 is not None,
        sessions_count=view.counts.sessions,
        tokens_count=view.counts.tokens,
        created_at=row.created_at,
        last_login_at=row.last_login_at,
        own=row.id == visit.actor.admin_id,
    )


def _password(fields: Fields) -> str:
    """The password of the form; empty for a link. Raises `Invalid` when neither was chosen."""
    if fields.text("way") != PASSWORD:
        return ""
    if not fields.secret("password"):
        raise invalid("password", "Choose a password, or a link.", "required")
    return fields.secret("password")


def _made(visit: Visit, view: AdminView, invite: Invite, message: str) -> Response[Any]:
    url = invite_url(public_base(visit.request, visit.context), invite)
    if url is None or invite.expires_at is None:
        return visit.done(PATH, message, CHANGED)
    shown = InviteView(name=view.row.name, url=url, expires_at=invite.expires_at)
    response = visit.dialog("admins/_invite.html", "One-time link", invite=shown)
    response.headers["hx-trigger"] = triggers(message, CHANGED)
    return response


def _again(
    visit: Visit, row: AdminRowView | None, fields: Fields, refusal: Refusal, *, template: str = "admins/_form.html"
) -> Response[bytes]:
    kept = {name: fields.text(name) for name in ("name", "role", "enabled", "way")} | {"password": ""}
    return _form(visit, row, refused(kept, refusal), status=UNPROCESSABLE, template=template)


def _form(
    visit: Visit, row: AdminRowView | None, form: FormView, *, status: int = 200, template: str = "admins/_form.html"
) -> Response[bytes]:
    roles = tuple(OptionView(value=name, label=name, hint=ROLE_HINTS.get(name, "")) for name in ROLES)
    whole = FormView(values=form.values, errors=form.errors, options={"role": roles, "way": WAYS})
    return visit.dialog(template, "Admin", status=status, admin_form=AdminFormView(form=whole, row=row))
