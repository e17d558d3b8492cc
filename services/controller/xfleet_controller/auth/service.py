"""Signing in and out, and who a request is."""

import hashlib
import hmac
from datetime import timedelta
from typing import NamedTuple, NoReturn

import msgspec

from xfleet_contracts.errors import Refusal
from xfleet_controller.audit.store import note
from xfleet_controller.auth import second_factor, store, throttle
from xfleet_controller.auth.models import Admin, Session
from xfleet_controller.auth.passwords import Passwords, password_errors
from xfleet_controller.auth.rights import OWNER, SYSTEM, Actor, authorize
from xfleet_controller.auth.second_factor import ChallengeOver, TotpRequired, WrongCode
from xfleet_controller.context import Context
from xfleet_controller.errors import Invalid
from xfleet_controller.texts import cleaned, has_controls
from xfleet_runtime.ids import new_token

TOUCH_AFTER = timedelta(minutes=1)
COOKIE = "xfleet_session"
MAX_NAME = 64
MAX_CODE = 100
TOKEN_PREFIX = "xf_"  # noqa: S105  how an API token begins, so that one is known where it leaked
TOKENS_KEPT = timedelta(days=90)
"""How long revoked and expired API tokens stay in the list."""


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


class Visitor(NamedTuple):
    """Where a sign-in comes from."""

    address: str
    user_agent: str
    kind: str


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
    context: Context,
    name: str,
    password: str,
    *,
    address: str,
    user_agent: str = "",
    kind: str = "bearer",
    code: str = "",
) -> SignedIn:
    """A new session for the right password and, where a second factor is set up, the right code.

    Raises `WrongPassword`, `TooManyTries`, `WrongCode`, or `TotpRequired` when the code is all that is missing.
    """
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
    if second_factor.has_second_factor(admin) and not code:
        raise TotpRequired(second_factor.make_challenge(context, admin))
    return await _enter(context, admin, code, Visitor(address, user_agent, kind))


async def sign_in_with_code(
    context: Context, challenge: str, code: str, *, address: str, user_agent: str = "", kind: str = "cookie"
) -> SignedIn:
    """The second step, by the note of the first. Raises `ChallengeOver`, `WrongCode` or `TooManyTries`."""
    passed = second_factor.open_challenge(context, challenge)
    async with context.database.read() as session:
        admin = await session.get(Admin, passed.admin_id)
    if admin is None or not second_factor.is_of(passed, admin):
        raise ChallengeOver
    return await _enter(context, admin, code, Visitor(address, user_agent, kind))


async def _enter(context: Context, passed: Admin, code: str, visitor: Visitor) -> SignedIn:
    """The session of somebody whose password was right; as of now, whatever changed in between."""
    now, token, used = context.clock.now(), new_token(), "password"
    async with context.database.write() as session:
        admin = await session.get(Admin, passed.id, with_for_update=True, populate_existing=True)
        if admin is None or not admin.enabled or admin.password_hash != passed.password_hash:
            raise WrongPassword
        if second_factor.has_second_factor(admin):
            known = await store.has_session_from(session, admin.id, visitor.address[:64], now)
            await second_factor.check_tries(session, admin, visitor.address, now, known=known)
            used = await second_factor.take_code(context, session, admin, code[:MAX_CODE], visitor.address)
        actor = _actor(admin, token, visitor.kind, visitor.address)
        if used:
            await throttle.forget(session, admin.name_key, visitor.address)
            session.add(_session_row(context, admin, token, visitor))
            admin.last_login_at = now
            note(session, actor, "sign_in", "admin", str(admin.id), now, name=admin.name, after={"by": used})
        else:
            subject = {"name": admin.name, "address": visitor.address}
            note(session, SYSTEM, "sign_in_code_refused", "admin", str(admin.id), now, **subject)
    if not used:
        raise WrongCode
    return SignedIn(token=token, actor=actor)


def _session_row(context: Context, admin: Admin, token: str, visitor: Visitor) -> Session:
    now = context.clock.now()
    return Session(
        token_sha256=hash_token(token),
        admin_id=admin.id,
        kind=visitor.kind,
        address=visitor.address[:64],
        user_agent=cleaned(visitor.user_agent, 300),
        created_at=now,
        last_used_at=now,
        expires_at=now + timedelta(days=context.settings.session_days),
    )


async def _refuse(context: Context, account: str, address: str, *, is_admin: bool) -> NoReturn:
    """Counts the failure and raises `WrongPassword`; a name nobody has may be a password in the wrong field."""
    now = context.clock.now()
    async with context.database.write() as session:
        await throttle.note_failure(session, account, address, now)
        note(session, SYSTEM, "sign_in_refused", "admin", account if is_admin else "unknown", now, address=address)
    raise WrongPassword


async def who_is(context: Context, token: str, *, kind: str, address: str) -> Actor:
    """The admin behind a session's or an API token. Raises `NotSignedIn`."""
    if token.startswith(TOKEN_PREFIX):
        return await _who_is_token(context, token, address) if kind == "bearer" else _nobody()
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


async def _who_is_token(context: Context, token: str, address: str) -> Actor:
    now = context.clock.now()
    async with context.database.read() as session:
        found = await store.find_token(session, hash_token(token))
    if found is None:
        raise NotSignedIn
    row, admin = found
    over = row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now)
    if over or not admin.enabled:
        raise NotSignedIn
    if row.last_used_at is None or now - row.last_used_at > TOUCH_AFTER:
        async with context.database.write() as session:
            await store.touch_token(session, row.id, now)
    return Actor(
        name=admin.name,
        role=admin.role,
        admin_id=admin.id,
        channel="token",
        address=address,
        token_id=row.id,
        token_name=row.name,
        scopes=frozenset(row.scopes),
    )


def _nobody() -> NoReturn:
    raise NotSignedIn


async def sign_out(context: Context, actor: Actor) -> None:
    """Ends the session the actor came with; an API token has none to end."""
    authorize(actor, "account.write")
    async with context.database.write() as session:
        await store.delete_sessions(session, token_sha256=actor.session)
        note(session, actor, "sign_out", "admin", str(actor.admin_id), context.clock.now(), name=actor.name)


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
        await store.delete_old_tokens(session, now - TOKENS_KEPT)
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
    "TOKEN_PREFIX",
    "ChallengeOver",
    "NotSignedIn",
    "Passwords",
    "SignedIn",
    "TotpRequired",
    "WrongCode",
    "WrongPassword",
    "csrf_token_of",
    "ensure_first_admin",
    "forget_the_old",
    "sign_in",
    "sign_in_with_code",
    "sign_out",
    "who_is",
]
