"""API tokens: made for scripts, bound to a part of their admin's rights, shown once, expiring."""

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

import msgspec

from xfleet_controller.audit.store import note
from xfleet_controller.auth import store
from xfleet_controller.auth.models import Admin, ApiToken
from xfleet_controller.auth.rights import Actor, Forbidden, actions_of, authorize, may, not_allowed
from xfleet_controller.auth.service import TOKEN_PREFIX, hash_token
from xfleet_controller.context import Context
from xfleet_controller.errors import Conflict, FieldError, Invalid, NotFound
from xfleet_controller.texts import has_controls
from xfleet_runtime.ids import new_token

MAX_NAME = 60
MAX_DAYS = 730
DEFAULT_DAYS = 90
MAX_TOKENS = 50
MAX_SCOPES = 50


class TokenNew(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A new API token."""

    name: str
    scopes: list[str]
    """Actions such as `clients.read`, areas such as `clients.*`, or `*`."""
    days: int = DEFAULT_DAYS
    """After how many days it stops working."""


class Made(NamedTuple):
    """A new token; its text is shown only here."""

    row: ApiToken
    token: str


async def list_tokens(context: Context, actor: Actor, admin_id: int | None = None) -> Sequence[ApiToken]:
    """The actor's API tokens, or for who sees admins those of another."""
    authorize(actor, "tokens.read")
    if admin_id is not None and admin_id != actor.admin_id:
        authorize(actor, "admins.read")
    async with context.database.read() as session:
        return await store.list_tokens(session, actor.admin_id or 0 if admin_id is None else admin_id)


async def create_token(context: Context, actor: Actor, new: TokenNew) -> Made:
    """A token with some of the actor's rights; one made by a token lasts no longer than that. Raises `Invalid`."""
    authorize(actor, "tokens.write")
    if errors := _errors_of(actor, new):
        raise Invalid(errors)
    now, token = context.clock.now(), f"{TOKEN_PREFIX}{new_token()}"
    async with context.database.write() as session:
        admin = await session.get_one(Admin, actor.admin_id, with_for_update=True, populate_existing=True)
        if not admin.enabled or admin.role != actor.role:
            raise Forbidden
        if len(await store.list_tokens(session, admin.id)) >= MAX_TOKENS:
            raise Conflict(f"An admin may have {MAX_TOKENS} API tokens. Revoke one that is not used.")
        row = ApiToken(
            admin_id=admin.id,
            name=new.name.strip(),
            token_sha256=hash_token(token),
            scopes=sorted(set(new.scopes)),
            created_at=now,
            expires_at=now + timedelta(days=new.days),
        )
        if actor.token_id is not None:
            maker = await session.get_one(ApiToken, actor.token_id, with_for_update=True, populate_existing=True)
            if maker.revoked_at is not None:
                raise Forbidden
            row.expires_at = min(row.expires_at, maker.expires_at or row.expires_at) if row.expires_at else None
        session.add(row)
        await session.flush()
        after = {"scopes": row.scopes, "expires_at": row.expires_at, "admin": admin.name}
        note(session, actor, "create_token", "token", str(row.id), now, name=row.name, after=after)
    return Made(row, token)


async def revoke_token(context: Context, actor: Actor, token_id: int) -> None:
    """Ends a token of the actor, or for who changes admins anybody's. Raises `NotFound`."""
    authorize(actor, "tokens.write")
    now = context.clock.now()
    async with context.database.write() as session:
        row = await session.get(ApiToken, token_id, with_for_update=True)
        mine = row is not None and row.admin_id == actor.admin_id
        if row is None or row.revoked_at is not None or not (mine or may(actor, "admins.write")):
            raise NotFound("There is no such API token.")
        row.revoked_at = now
        admin = await session.get_one(Admin, row.admin_id)
        note(session, actor, "revoke_token", "token", str(row.id), now, name=row.name, before={"admin": admin.name})


def _errors_of(actor: Actor, new: TokenNew) -> list[FieldError]:
    errors: list[FieldError] = []
    if not new.name.strip() or len(new.name.strip()) > MAX_NAME or has_controls(new.name):
        errors.append(FieldError("name", f"The name needs 1 to {MAX_NAME} characters.", "bad_name"))
    if not 1 <= new.days <= MAX_DAYS:
        errors.append(FieldError("days", f"A token lasts 1 to {MAX_DAYS} days.", "out_of_range"))
    if not 1 <= len(new.scopes) <= MAX_SCOPES:
        errors.append(FieldError("scopes", "Choose what the token may do.", "required"))
    elif unknown := [scope[:60] for scope in new.scopes if not actions_of(scope)]:
        errors.append(FieldError("scopes", f"There is no such action: {', '.join(unknown)}.", "unknown_scope"))
    elif refused := not_allowed(actor, new.scopes):
        errors.append(FieldError("scopes", f"Not yours to give: {', '.join(refused)}.", "not_yours"))
    return errors
