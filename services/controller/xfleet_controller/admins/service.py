"""Admins: who they are, what role they have, and the links by which they choose their passwords.

Whatever changes what an admin may do, or how it signs in, ends its sessions and API tokens in the same transaction.
"""

import re
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.errors import Refusal
from xfleet_controller.admins import store as admins
from xfleet_controller.admins.store import Counts
from xfleet_controller.audit.store import note
from xfleet_controller.auth import second_factor, store
from xfleet_controller.auth.models import Admin
from xfleet_controller.auth.passwords import password_errors
from xfleet_controller.auth.rights import OWNER, ROLES, Actor, Forbidden, authorize
from xfleet_controller.auth.service import hash_token
from xfleet_controller.bot.service import forget_admin
from xfleet_controller.context import Context
from xfleet_controller.errors import FieldError, Invalid, NotFound, invalid
from xfleet_runtime.ids import new_token

INVITE_LIFETIME = timedelta(hours=24)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
"""ASCII alone: no two names that look alike, nothing that could break a header, a log line or a page's direction."""


class LastOwner(Refusal):
    """Nobody would be left who may do everything."""

    code = "last_owner"
    status = 409
    message = "This is the last owner who can sign in. Make somebody else an owner first."


class OwnAccount(Refusal):
    """What concerns the own way in is done on the own account, where it asks for the password."""

    code = "own_account"
    status = 409
    message = "Do this on your own account page, where your password is asked for."


class InviteOver(Refusal):
    """A link that was used, is too old, or never was: always the same words."""

    code = "invite_over"
    status = 410
    message = "This link is not valid any more. Ask for a new one."


class AdminNew(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A new admin; without a password a one-time link is made by which the admin chooses one."""

    name: str
    role: str
    password: str = ""


class AdminEdit(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What may be changed; what is left out stays."""

    role: str | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class AdminView(NamedTuple):
    """An admin with what acts in its name."""

    row: Admin
    counts: Counts

    @property
    def has_second_factor(self) -> bool:
        """Whether a code is asked for at sign-in."""
        return second_factor.has_second_factor(self.row)


class Invite(NamedTuple):
    """A one-time link's secret part; empty when a password was given instead."""

    token: str
    expires_at: datetime | None


async def list_admins(context: Context, actor: Actor) -> list[AdminView]:
    """All admins by name."""
    authorize(actor, "admins.read")
    async with context.database.read() as session:
        rows = await admins.list_admins(session)
        counts = await admins.count_by_admin(session, context.clock.now())
    return [AdminView(row, counts.get(row.id, Counts())) for row in rows]


async def get_admin(context: Context, actor: Actor, admin_id: int) -> AdminView:
    """One admin. Raises `NotFound`."""
    for view in await list_admins(context, actor):
        if view.row.id == admin_id:
            return view
    raise NotFound("There is no such admin.")


async def create_admin(context: Context, actor: Actor, new: AdminNew) -> tuple[AdminView, Invite]:
    """A new admin. Raises `Invalid` with the fields that are wrong."""
    authorize(actor, "admins.write")
    name = new.name.strip()
    errors = _name_errors(name) + _role_errors(new.role) + (password_errors(new.password) if new.password else [])
    if errors:
        raise Invalid(errors)
    now, password_hash = context.clock.now(), await context.passwords.hash(new.password or new_token())
    async with context.database.write() as session:
        await _lock(session, actor)
        if await store.find_admin(session, name) is not None:
            raise invalid("name", "Another admin has this name.", "name_taken")
        row = Admin(
            name=name, name_key=name.lower(), password_hash=password_hash, role=new.role, enabled=True,
            created_at=now, password_changed_at=now,
        )  # fmt: skip
        invite = Invite("", None) if new.password else _invite(row, now)
        session.add(row)
        await session.flush()
        after = {"role": row.role, "invited": not new.password}
        note(session, actor, "create_admin", "admin", str(row.id), now, name=row.name, after=after)
    return AdminView(row, Counts()), invite


async def edit_admin(context: Context, actor: Actor, admin_id: int, edit: AdminEdit) -> AdminView:
    """Changes role, or whether the admin may sign in. Raises `Invalid`, `NotFound` or `LastOwner`."""
    authorize(actor, "admins.write")
    if edit.role is not UNSET and (errors := _role_errors(edit.role)):
        raise Invalid(errors)
    now = context.clock.now()
    async with context.database.write() as session:
        owners = await _lock(session, actor)
        row = await _held(session, admin_id)
        before = {"role": row.role, "enabled": row.enabled}
        after = {
            "role": row.role if edit.role is UNSET else edit.role,
            "enabled": row.enabled if edit.enabled is UNSET else edit.enabled,
        }
        if after != before:
            if after != {"role": OWNER, "enabled": True}:
                _keep_an_owner(owners, row)
            row.role, row.enabled = after["role"], after["enabled"]
            await store.end_everything(session, row.id, now)
            if not row.enabled:
                row.invite_sha256 = row.invite_expires_at = None
            note(session, actor, "edit_admin", "admin", str(row.id), now, name=row.name, before=before, after=after)
    return await _view(context, row)


async def reset_password(context: Context, actor: Actor, admin_id: int, password: str = "") -> Invite:
    """Another password for another admin, or a link by which it chooses one; the old one stops working at once.

    Bound Telegram accounts go too; the second factor stays. Raises `Invalid`, `NotFound` or `OwnAccount`.
    """
    authorize(actor, "admins.write")
    _not_own(actor, admin_id)
    if password and (errors := password_errors(password)):
        raise Invalid(errors)
    now, password_hash = context.clock.now(), await context.passwords.hash(password or new_token())
    async with context.database.write() as session:
        await _lock(session, actor)
        row = await _held(session, admin_id)
        row.password_hash, row.password_changed_at = password_hash, now
        row.invite_sha256 = row.invite_expires_at = None
        invite = Invite("", None) if password else _invite(row, now)
        await store.end_everything(session, row.id, now)
        await forget_admin(session, row.id)
        after = {"invited": not password}
        note(session, actor, "reset_password", "admin", str(row.id), now, name=row.name, after=after)
    return invite


async def remove_totp(context: Context, actor: Actor, admin_id: int) -> None:
    """Takes the second factor from another admin, who lost the phone. Raises `NotFound` or `OwnAccount`."""
    authorize(actor, "admins.write")
    _not_own(actor, admin_id)
    now = context.clock.now()
    async with context.database.write() as session:
        await _lock(session, actor)
        row = await _held(session, admin_id)
        row.totp_sealed = row.totp_confirmed_at = row.totp_last_counter = None
        await store.replace_recovery_codes(session, row.id, (), now)
        note(session, actor, "remove_totp", "admin", str(row.id), now, name=row.name)


async def delete_admin(context: Context, actor: Actor, admin_id: int) -> None:
    """Deletes an admin with all that acts in its name; what it did stays in the audit log.

    Raises `NotFound` or `LastOwner`.
    """
    authorize(actor, "admins.write")
    async with context.database.write() as session:
        owners = await _lock(session, actor)
        row = await _held(session, admin_id)
        _keep_an_owner(owners, row)
        before = {"role": row.role, "enabled": row.enabled}
        note(
            session, actor, "delete_admin", "admin", str(row.id), context.clock.now(), name=row.name, before=before
        )  # fmt: skip
        await session.delete(row)


async def name_of_invite(context: Context, token: str) -> str:
    """Whom a link invites. Raises `InviteOver`."""
    async with context.database.read() as session:
        row = await admins.find_invited(session, hash_token(token), context.clock.now())
    if row is None:
        raise InviteOver
    return row.name


async def accept_invite(context: Context, token: str, password: str, *, address: str) -> str:
    """Uses up a link: the password is the admin's from now on; its name. Raises `InviteOver` or `Invalid`."""
    name = await name_of_invite(context, token)
    if errors := password_errors(password):
        raise Invalid(errors)
    now, password_hash = context.clock.now(), await context.passwords.hash(password)
    async with context.database.write() as session:
        row = await admins.find_invited(session, hash_token(token), now, hold=True)
        if row is None:
            raise InviteOver
        row.password_hash, row.password_changed_at = password_hash, now
        row.invite_sha256 = row.invite_expires_at = None
        await store.end_everything(session, row.id, now)
        invited = Actor(name=row.name, role=row.role, admin_id=row.id, address=address)
        note(session, invited, "accept_invite", "admin", str(row.id), now, name=row.name)
    return name


def _invite(row: Admin, now: datetime) -> Invite:
    token, expires_at = new_token(), now + INVITE_LIFETIME
    row.invite_sha256, row.invite_expires_at = hash_token(token), expires_at
    return Invite(token, expires_at)


async def _lock(session: AsyncSession, actor: Actor) -> list[Admin]:
    """All owners, held; changes among admins come one after the other, and the actor must still be an owner.

    Raises `Forbidden` for somebody who was demoted a moment ago.
    """
    owners = await store.lock_owners(session)
    if actor.channel != "system" and actor.admin_id not in {row.id for row in owners}:
        raise Forbidden
    return owners


async def _held(session: AsyncSession, admin_id: int) -> Admin:
    row = await session.get(Admin, admin_id, with_for_update=True, populate_existing=True)
    if row is None:
        raise NotFound("There is no such admin.")
    return row


async def _view(context: Context, row: Admin) -> AdminView:
    async with context.database.read() as session:
        counts = await admins.count_by_admin(session, context.clock.now())
    return AdminView(row, counts.get(row.id, Counts()))


def _keep_an_owner(owners: list[Admin], row: Admin) -> None:
    """Raises `LastOwner` when without this admin no owner is left who can sign in; one who is only invited cannot."""
    if row.role == OWNER and row.enabled and not any(each.id != row.id and not each.invite_sha256 for each in owners):
        raise LastOwner


def _not_own(actor: Actor, admin_id: int) -> None:
    if actor.admin_id == admin_id:
        raise OwnAccount


def _name_errors(name: str) -> list[FieldError]:
    if NAME.fullmatch(name):
        return []
    reason = (
        "A name has 1 to 64 letters A–Z, digits, dots, dashes, underscores or @, and begins with a letter or digit."
    )
    return [FieldError("name", reason, "bad_name")]


def _role_errors(role: str) -> list[FieldError]:
    return [] if role in ROLES else [FieldError("role", f"The roles are {', '.join(ROLES)}.", "unknown_role")]
