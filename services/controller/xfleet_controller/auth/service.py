"""Signing in and out, and who a request is."""

import hashlib
import hmac
from collections.abc import Sequence
from datetime import timedelta
from typing import NoReturn

import msgspec

from xfleet_contracts.errors import Refusal
from xfleet_controller.audit.store import note
from xfleet_controller.auth import store, throttle
from xfleet_controller.auth.models import Admin, Session
from xfleet_controller.auth.passwords import Passwords, password_errors
from xfleet_controller.auth.rights import OWNER, SYSTEM, Actor, authorize
from xfleet_controller.context import Context
from xfleet_controller.errors import Invalid, NotFound, invalid
from xfleet_controller.texts import has_controls
from xfleet_runtime.ids import new_token

TOUCH_AFTER = timedelta(minutes=1)
COOKIE = "xfleet_session"
MAX_NAME = 64


class NotSignedIn(Refusal):
    """No session, or one that is over."""

    code = "not_signed_in"
    status = 401
    message = "Sign in first."


class WrongPassword(Refusal):
    """Name or password are wrong; which of them is not told."""

    code = "wrong_password"
    status = 401
    message = "Name or password are wrong."


class SignedIn(msgspec.Struct, frozen=True, kw_only=True):
    """A new session: its token is shown only here."""

    token: str
    actor: Actor


def hash_token(token: str) -> str:
    """What the database keeps of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def csrf_token_of(token: str) -> str:
    """What forms of this session carry: bound to it, useless without its cookie."""
    return hmac.new(token.encode(), b"xfleet-csrf-v1", hashlib.sha256).hexdigest()


async def sign_in(
    context: Context, name: str, password: str, *, address: str, user_agent: str = "", kind: str = "bearer"
) -> SignedIn:
    """A new session for the right password. Raises `WrongPassword` or `TooManyTries`."""
    now, account = context.clock.now(), name.strip().lower()[:MAX_NAME]
    if has_controls(account):
        raise WrongPassword
    async with context.database.read() as session:
        admin = await store.find_admin(session, account)
        known = await store.has_session_from(session, admin.id if admin else 0, address[:64], now)
    with context.tries.one(account, address, known=known):
        async with context.database.read() as session:
            await throttle.check(session, account, address, now, known=known)
        fits = await context.passwords.fits(admin.password_hash if admin else None, password[:1000])
        if admin is None or not fits or not admin.enabled:
            await _refuse(context, account, address, is_admin=admin is not None)
    token = new_token()
    async with context.database.write() as session:
        current = await session.get(Admin, admin.id, with_for_update=True, populate_existing=True)
        if current is None or not current.enabled or current.password_hash != admin.password_hash:
            raise WrongPassword
        await throttle.forget(session, account, address)
        session.add(
            Session(
                token_sha256=hash_token(token),
                admin_id=admin.id,
                kind=kind,
                address=address[:64],
                user_agent=user_agent[:300],
                created_at=now,
                last_used_at=now,
                expires_at=now + timedelta(days=context.settings.session_days),
            )
        )
        actor = _actor(admin, token, kind, address)
        note(session, actor, "sign_in", "admin", str(admin.id), now, name=admin.name)
    return SignedIn(token=token, actor=actor)


async def _refuse(context: Context, account: str, address: str, *, is_admin: bool) -> NoReturn:
    """Counts the failure and raises `WrongPassword`; a name nobody has may be a password in the wrong field."""
    now = context.clock.now()
    async with context.database.write() as session:
        await throttle.note_failure(session, account, address, now)
        note(session, SYSTEM, "sign_in_refused", "admin", account if is_admin else "unknown", now, address=address)
    raise WrongPassword


async def who_is(context: Context, token: str, *, kind: str, address: str) -> Actor:
    """The admin behind a session's token. Raises `NotSignedIn`."""
    now, sha256 = context.clock.now(), hash_token(token)
    async with context.database.read() as session:
        found = await store.find_session(session, sha256)
    if found is None:
        raise NotSignedIn
    row, admin = found
    idle = timedelta(days=context.settings.session_idle_days)
    if row.kind != kind or not admin.enabled or row.expires_at <= now or now - row.last_used_at > idle:
        raise NotSignedIn
    if now - row.last_used_at > TOUCH_AFTER:
        async with context.database.write() as session:
            await store.touch_session(session, sha256, now)
    return _actor(admin, token, kind, address)


async def sign_out(context: Context, actor: Actor) -> None:
    """Ends the session the actor came with."""
    async with context.database.write() as session:
        await store.delete_sessions(session, token_sha256=actor.session)
        note(session, actor, "sign_out", "admin", str(actor.admin_id), context.clock.now(), name=actor.name)


async def list_sessions(context: Context, actor: Actor) -> Sequence[Session]:
    """Where the actor is signed in."""
    authorize(actor, "account.read")
    async with context.database.read() as session:
        return await store.list_sessions(session, actor.admin_id or 0)


async def revoke_session(context: Context, actor: Actor, session_id: str) -> None:
    """Ends another session of the actor, named by its hash. Raises `NotFound`."""
    authorize(actor, "account.write")
    async with context.database.write() as session:
        ended = await store.delete_sessions(session, token_sha256=session_id, admin_id=actor.admin_id or 0)
        if not ended:
            raise NotFound
        note(session, actor, "revoke_session", "admin", str(actor.admin_id), context.clock.now(), name=actor.name)


async def change_password(context: Context, actor: Actor, current: str, new: str) -> None:
    """Replaces the actor's own password; all other sessions end. Raises `Invalid` or `TooManyTries`."""
    authorize(actor, "account.write")
    now = context.clock.now()
    if errors := password_errors(new, "new_password"):
        raise Invalid(errors)
    async with context.database.read() as session:
        await throttle.check(session, actor.name.lower(), actor.address, now)
        admin = await session.get_one(Admin, actor.admin_id)
    if not await context.passwords.fits(admin.password_hash, current[:1000]):
        async with context.database.write() as session:
            await throttle.note_failure(session, actor.name.lower(), actor.address, now)
        raise invalid("current_password", "The current password is wrong.", "wrong_password")
    password_hash = await context.passwords.hash(new)
    async with context.database.write() as session:
        admin = await session.get_one(Admin, actor.admin_id, with_for_update=True)
        admin.password_hash, admin.password_changed_at = password_hash, now
        await store.delete_sessions(session, admin_id=admin.id, except_sha256=actor.session)
        note(session, actor, "change_password", "admin", str(admin.id), now, name=admin.name)


async def ensure_first_admin(context: Context, password: str) -> bool:
    """Makes the admin `admin` with this password when there is no admin at all; whether it did."""
    async with context.database.read() as session:
        if await store.count_admins(session):
            return False
    if errors := password_errors(password):
        raise Invalid(errors)
    password_hash, now = await context.passwords.hash(password), context.clock.now()
    async with context.database.write() as session:
        if await store.count_admins(session):
            return False
        admin = Admin(
            name="admin",
            name_key="admin",
            password_hash=password_hash,
            role=OWNER,
            created_at=now,
            password_changed_at=now,
        )
        session.add(admin)
        await session.flush()
        note(session, SYSTEM, "create_admin", "admin", str(admin.id), now, name="admin")
    return True


async def forget_the_old(context: Context) -> None:
    """Drops sessions and throttles that are over."""
    now = context.clock.now()
    async with context.database.write() as session:
        await store.delete_expired(session, now, now - timedelta(days=context.settings.session_idle_days))
        await throttle.forget_old(session, now)


def _actor(admin: Admin, token: str, kind: str, address: str) -> Actor:
    return Actor(
        name=admin.name,
        role=admin.role,
        admin_id=admin.id,
        address=address,
        session=hash_token(token),
        csrf_token=csrf_token_of(token) if kind == "cookie" else "",
    )


__all__ = [
    "COOKIE",
    "NotSignedIn",
    "Passwords",
    "SignedIn",
    "WrongPassword",
    "change_password",
    "csrf_token_of",
    "ensure_first_admin",
    "forget_the_old",
    "list_sessions",
    "revoke_session",
    "sign_in",
    "sign_out",
    "who_is",
]
