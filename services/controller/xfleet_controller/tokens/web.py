"""API tokens with a browser."""

from typing import Any

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from xfleet_contracts.errors import Refusal
from xfleet_controller.admins.service import get_admin
from xfleet_controller.auth.models import ApiToken
from xfleet_controller.auth.rights import ACTIONS, authorize, not_allowed
from xfleet_controller.panel.forms import read_fields, refused, whole_number
from xfleet_controller.panel.views import FormView, OptionView
from xfleet_controller.panel.visit import UNPROCESSABLE, Visit, triggers
from xfleet_controller.tokens import service
from xfleet_controller.tokens.service import DEFAULT_DAYS, TokenNew
from xfleet_controller.tokens.views import TokenFormView, TokenMadeView, TokenRowView, TokensPageView

CHANGED = "tokens-changed"
PATH = "/settings/tokens"
ALL = "*"


@get("/settings/tokens", include_in_schema=False)
async def show_tokens(visit: NamedDependency[Visit]) -> Response[bytes]:
    """The own tokens."""
    rows = await service.list_tokens(visit.context, visit.actor)
    page = TokensPageView(rows=tuple(_row(row, visit) for row in rows))
    return visit.page("tokens/index.html", tokens=page)


@get("/settings/admins/{admin_id:int}/tokens", include_in_schema=False)
async def show_tokens_of(visit: NamedDependency[Visit], admin_id: FromPath[int]) -> Response[bytes]:
    """Another admin's tokens."""
    view = await get_admin(visit.context, visit.actor, admin_id)
    rows = await service.list_tokens(visit.context, visit.actor, admin_id)
    page = TokensPageView(rows=tuple(_row(row, visit) for row in rows), of=view.row.name)
    return visit.page("tokens/index.html", tokens=page)


@get("/settings/tokens/new", include_in_schema=False)
async def show_new_form(visit: NamedDependency[Visit]) -> Response[bytes]:
    """The empty form."""
    authorize(visit.actor, "tokens.write")
    return _form(visit, FormView(values={"name": "", "days": str(DEFAULT_DAYS)}), set())


@post("/settings/tokens/new", include_in_schema=False)
async def take_new_form(visit: NamedDependency[Visit]) -> Response[Any]:
    """Makes a token and shows it, once."""
    authorize(visit.actor, "tokens.write")
    fields = await read_fields(visit.request)
    scopes = fields.every("scopes")
    try:
        new = TokenNew(name=fields.text("name"), scopes=scopes, days=whole_number(fields.text("days")) or 0)
        made = await service.create_token(visit.context, visit.actor, new)
    except Refusal as refusal:
        kept = {"name": fields.text("name"), "days": fields.text("days"), "scopes": ""}
        return _form(visit, refused(kept, refusal), set(scopes), status=UNPROCESSABLE)
    shown = TokenMadeView(name=made.row.name, token=made.token, expires_at=made.row.expires_at)
    response = visit.dialog("tokens/_made.html", "API token", made=shown)
    response.headers["hx-trigger"] = triggers("API token made", CHANGED)
    return response


@post("/settings/tokens/{token_id:int}/revoke", include_in_schema=False)
async def revoke(visit: NamedDependency[Visit], token_id: FromPath[int]) -> Response[Any]:
    """Ends a token."""
    await service.revoke_token(visit.context, visit.actor, token_id)
    return visit.done(PATH, "API token revoked", CHANGED)


def _row(row: ApiToken, visit: Visit) -> TokenRowView:
    return TokenRowView(
        id=row.id,
        name=row.name,
        scopes=tuple(row.scopes),
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        expires_at=row.expires_at,
        expired=row.expires_at is not None and row.expires_at <= visit.context.clock.now(),
    )


def _form(visit: Visit, form: FormView, chosen: set[str], *, status: int = 200) -> Response[bytes]:
    everything = OptionView(
        value=ALL, label="Everything my role allows", hint="Save admins and API tokens.", chosen=ALL in chosen
    )
    actions = tuple(
        OptionView(value=action, label=words, hint=action, chosen=action in chosen)
        for action, words in ACTIONS.items()
        if not not_allowed(visit.actor, [action])
    )
    whole = FormView(values=form.values, errors=form.errors, options={"scopes": (everything, *actions)})
    return visit.dialog("tokens/_form.html", "API token", status=status, token_form=TokenFormView(form=whole))
