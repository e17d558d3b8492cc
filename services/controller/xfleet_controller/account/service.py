"""The own account: password, where one is signed in, the second factor."""

import hashlib
from collections.abc import Sequence

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.errors import Refusal
from xfleet_contracts.message import Secret
from xfleet_controller.audit.store import note
from xfleet_controller.auth import second_factor, store, throttle, totp
from xfleet_controller.auth.models import Admin, Session
from xfleet_controller.auth.passwords import password_errors
from xfleet_controller.auth.rights import Actor, authorize
from xfleet_controller.auth.service import MAX_CODE, NotSignedIn
from xfleet_controller.context import Context
from xfleet_controller.errors import Invalid, NotFound, invalid

ID_LENGTH = 16


class TotpOn(Refusal):
    """A second factor is set up already."""

    code = "totp_on"
    status = 409
    message = "A second factor is set up already. Turn it off first."


class TotpOff(Refusal):
    """There is no second factor, or none that waits for its first code."""

    code = "totp_off"
    status = 409
    message = "No second factor is being set up. Begin again."


class TotpSetup(msgspec.Struct, frozen=True, kw_only=True):
    """What an authenticator app needs; shown once."""

    secret: Secret
    url: Secret
    """As the QR code says it."""


class SecondFactor(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a code is asked for at sign-in."""

    on: bool
    recovery_codes_left: int = 0


def session_id(row: Session) -> str:
    """A session's public name: says nothing about its token, nor about the token's hash."""
    return hashlib.sha256(f"session:{row.token_sha256}".encode()).hexdigest()[:ID_LENGTH]


async def list_sessions(context: Context, actor: Actor) -> Sequence[Session]:
    """Where the actor is signed in."""
    authorize(actor, "account.read")
    async with context.database.read() as session:
        return await store.list_sessions(session, actor.admin_id or 0)


async def revoke_session(context: Context, actor: Actor, public_id: str) -> None:
    """Ends another session of the actor, by its public name. Raises `NotFound`."""
    authorize(actor, "account.write")
    async with context.database.write() as session:
        rows = await store.list_sessions(session, actor.admin_id or 0)
        found = [row.token_sha256 for row in rows if session_id(row) == public_id]
        if not found or not await store.delete_sessions(session, token_sha256=found[0]):
            raise NotFound("There is no such session.")
        note(session, actor, "revoke_session", "admin", str(actor.admin_id), context.clock.now(), name=actor.name)


async def sign_out_everywhere(context: Context, actor: Actor) -> None:
    """Ends all sessions of the actor, this one too; API tokens stay."""
    authorize(actor, "account.write")
    async with context.database.write() as session:
        await store.delete_sessions(session, admin_id=actor.admin_id or 0)
        note(session, actor, "sign_out_everywhere", "admin", str(actor.admin_id), context.clock.now(), name=actor.name)


async def change_password(context: Context, actor: Actor, current: str, new: str) -> None:
    """Replaces the actor's own password; all other sessions and the API tokens made in the panel end.

    Raises `Invalid` or `TooManyTries`.
    """
    authorize(actor, "account.write")
    if errors := password_errors(new, "new_password"):
        raise Invalid(errors)
    proved = await _prove(context, actor, current, "current_password")
    password_hash, now = await context.passwords.hash(new), context.clock.now()
    async with context.database.write() as session:
        admin = await _still(session, actor, proved)
        admin.password_hash, admin.password_changed_at = password_hash, now
        await store.end_others(session, admin.id, now, except_sha256=actor.session)
        note(session, actor, "change_password", "admin", str(admin.id), now, name=admin.name)


async def get_second_factor(context: Context, actor: Actor) -> SecondFactor:
    """Whether the actor has a second factor, and how many recovery codes are left."""
    authorize(actor, "account.read")
    async with context.database.read() as session:
        admin = await session.get_one(Admin, actor.admin_id)
        left = await store.count_recovery_codes(session, admin.id)
    on = second_factor.has_second_factor(admin)
    return SecondFactor(on=on, recovery_codes_left=left if on else 0)


async def begin_totp(context: Context, actor: Actor, password: str) -> TotpSetup:
    """A fresh secret, shown once; it counts from `confirm_totp` on. Raises `TotpOn`, `Invalid` or `TooManyTries`."""
    authorize(actor, "account.write")
    proved = await _prove(context, actor, password, "password")
    secret, now = totp.new_secret(), context.clock.now()
    async with context.database.write() as session:
        admin = await _still(session, actor, proved)
        if second_factor.has_second_factor(admin):
            raise TotpOn
        admin.totp_sealed = context.vault.seal(second_factor.record_of(admin.id), secret)
        admin.totp_confirmed_at = admin.totp_last_counter = None
        note(session, actor, "begin_totp", "admin", str(admin.id), now, name=admin.name)
    url = totp.app_url(secret, issuer=context.settings.profile_title, account=actor.name)
    return TotpSetup(secret=totp.secret_text(secret), url=url)


async def confirm_totp(context: Context, actor: Actor, code: str) -> tuple[str, ...]:
    """Turns the second factor on, by a first code; the recovery codes, shown once. Other sessions end.

    Raises `TotpOn`, `TotpOff`, `Invalid` or `TooManyTries`.
    """
    authorize(actor, "account.write")
    codes, now = totp.new_recovery_codes(), context.clock.now()
    async with context.database.write() as session:
        admin = await session.get_one(Admin, actor.admin_id, with_for_update=True)
        if second_factor.has_second_factor(admin):
            raise TotpOn
        if admin.totp_sealed is None:
            raise TotpOff
        await store.replace_recovery_codes(session, admin.id, (), now)
        await second_factor.check_tries(session, admin, actor.address, now, known=False)
        fits = await second_factor.take_code(context, session, admin, code[:MAX_CODE], actor.address)
        if fits:
            admin.totp_confirmed_at = now
            await store.replace_recovery_codes(session, admin.id, _hashes(codes), now)
            await store.delete_sessions(session, admin_id=admin.id, except_sha256=actor.session)
            note(session, actor, "confirm_totp", "admin", str(admin.id), now, name=admin.name)
    if not fits:
        raise invalid("code", "This code is not the one your app should show now.", "wrong_code")
    return codes


async def disable_totp(context: Context, actor: Actor, password: str, code: str) -> None:
    """Turns the second factor off, for password and code. Raises `TotpOff`, `Invalid` or `TooManyTries`."""
    authorize(actor, "account.write")
    proved = await _prove(context, actor, password, "password")
    await _with_code(context, actor, proved, code, "disable_totp")


async def renew_recovery_codes(context: Context, actor: Actor, password: str, code: str) -> tuple[str, ...]:
    """Ten new recovery codes, for password and code; older ones stop working.

    Raises `TotpOff`, `Invalid` or `TooManyTries`.
    """
    authorize(actor, "account.write")
    proved = await _prove(context, actor, password, "password")
    codes = totp.new_recovery_codes()
    await _with_code(context, actor, proved, code, "renew_recovery_codes", codes)
    return codes


async def _with_code(
    context: Context, actor: Actor, proved: str, code: str, action: str, codes: tuple[str, ...] = ()
) -> None:
    """What only a right code may do: turns the second factor off, or replaces its recovery codes by these."""
    now = context.clock.now()
    async with context.database.write() as session:
        admin = await _still(session, actor, proved)
        if not second_factor.has_second_factor(admin):
            raise TotpOff
        await second_factor.check_tries(session, admin, actor.address, now, known=False)
        fits = await second_factor.take_code(context, session, admin, code[:MAX_CODE], actor.address)
        if fits:
            if not codes:
                admin.totp_sealed = admin.totp_confirmed_at = admin.totp_last_counter = None
            await store.replace_recovery_codes(session, admin.id, _hashes(codes), now)
            note(session, actor, action, "admin", str(admin.id), now, name=admin.name, after={"by": fits})
    if not fits:
        raise invalid("code", second_factor.WrongCode.message, "wrong_code")


async def _prove(context: Context, actor: Actor, password: str, field: str) -> str:
    """The hash of the password that whoever holds the session knows; wrong ones are counted as at sign-in."""
    now, account = context.clock.now(), actor.name.lower()
    with context.tries.one(account, actor.address, known=True):
        async with context.database.read() as session:
            await throttle.check(session, account, actor.address, now)
            admin = await session.get_one(Admin, actor.admin_id)
        if await context.passwords.fits(admin.password_hash, password[:1000]):
            return admin.password_hash
        async with context.database.write() as session:
            await throttle.note_failure(session, account, actor.address, now)
    raise invalid(field, "The password is wrong.", "wrong_password")


async def _still(session: AsyncSession, actor: Actor, proved: str) -> Admin:
    """The actor's row, held, if the password is still the one that was proved. Raises `NotSignedIn`."""
    admin = await session.get(Admin, actor.admin_id, with_for_update=True, populate_existing=True)
    if admin is None or not admin.enabled or admin.password_hash != proved:
        raise NotSignedIn
    return admin


def _hashes(codes: Sequence[str]) -> list[str]:
    return [hashed for code in codes if (hashed := totp.recovery_hash(code)) is not None]
