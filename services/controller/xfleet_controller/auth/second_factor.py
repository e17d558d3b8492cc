"""The second step of a sign-in: codes of an authenticator app, recovery codes, the sealed note between the steps."""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.errors import Refusal
from xfleet_controller.auth import store, throttle, totp
from xfleet_controller.auth.models import Admin
from xfleet_controller.context import Context
from xfleet_runtime.keys.sealed import BoxUnreadableError

CHALLENGE_S = 300
CHALLENGE = "sign-in-challenge"
MAX_CHALLENGE = 1000


class TotpRequired(Refusal):
    """The password is right; a code of the authenticator app is needed too."""

    code = "totp_required"
    status = 401
    message = "A code of your authenticator app, or a recovery code, is needed too."

    def __init__(self, challenge: str) -> None:
        super().__init__()
        self.challenge = challenge
        """Says to the second step that the first was passed; good for `CHALLENGE_S`."""


class WrongCode(Refusal):
    """The code is wrong, too old or was used."""

    code = "wrong_code"
    status = 401
    message = "This code is not valid, or was used already. Wait for the next one."


class ChallengeOver(Refusal):
    """The first step was too long ago, or did not happen."""

    code = "challenge_over"
    status = 401
    message = "This took too long. Sign in again."


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """What the sealed note says."""

    admin_id: int
    password: str
    """Digest of the password's hash: a changed password ends the sign-in."""
    until_s: int


def record_of(admin_id: int) -> str:
    """Under which name an admin's secret is sealed."""
    return f"admin:{admin_id}:totp"


def has_second_factor(admin: Admin) -> bool:
    """Whether a code is asked for at sign-in; a secret that was not confirmed yet does not count."""
    return admin.totp_sealed is not None and admin.totp_confirmed_at is not None


def make_challenge(context: Context, admin: Admin) -> str:
    """The note that carries a sign-in to its second step."""
    until_s = int(context.clock.now().timestamp()) + CHALLENGE_S
    note = Challenge(admin_id=admin.id, password=_digest(admin), until_s=until_s)
    return urlsafe_b64encode(context.vault.seal_value(CHALLENGE, msgspec.to_builtins(note))).decode()


def open_challenge(context: Context, text: str) -> Challenge:
    """What the note says. Raises `ChallengeOver` for one that is too old, foreign or forged."""
    try:
        column = urlsafe_b64decode(text[:MAX_CHALLENGE].encode("ascii"))
        note = context.vault.open_value(CHALLENGE, column, Challenge)
    except (ValueError, BoxUnreadableError, msgspec.DecodeError) as error:
        raise ChallengeOver from error
    if note.until_s < context.clock.now().timestamp():
        raise ChallengeOver
    return note


def is_of(challenge: Challenge, admin: Admin) -> bool:
    """Whether the note was made for this admin with the password of now."""
    return challenge.admin_id == admin.id and challenge.password == _digest(admin)


async def check_tries(session: AsyncSession, admin: Admin, address: str, now: datetime, *, known: bool) -> None:
    """Raises `TooManyTries` while codes may not be tried.

    Whoever tries codes knows the password: unlike with passwords, the account itself waits long.
    """
    await throttle.check(session, _account(admin), address, now, known=known)


async def take_code(context: Context, session: AsyncSession, admin: Admin, code: str, address: str) -> str:
    """Uses up a code: `totp`, `recovery`, or empty when it is wrong, which is counted.

    The caller holds the admin's row, so that tries come one after the other, and commits also when the code was wrong.
    """
    now = context.clock.now()
    if (counter := _counter(context, admin, code, now)) is not None:
        admin.totp_last_counter = counter
        await throttle.forget(session, _account(admin), address)
        return "totp"
    sha256 = totp.recovery_hash(code)
    if sha256 is not None and await store.use_recovery_code(session, admin.id, sha256, now):
        await throttle.forget(session, _account(admin), address)
        return "recovery"
    await throttle.note_failure(session, _account(admin), address, now, account_s=throttle.LONGEST_S)
    return ""


def _counter(context: Context, admin: Admin, code: str, now: datetime) -> int | None:
    if admin.totp_sealed is None:
        return None
    secret = context.vault.open(record_of(admin.id), admin.totp_sealed)
    return totp.counter_of(secret, code, now.timestamp(), admin.totp_last_counter)


def _account(admin: Admin) -> str:
    """Under which codes are counted; in capitals, so that no name typed at sign-in can be it."""
    return f"TOTP#{admin.id}"


def _digest(admin: Admin) -> str:
    return hashlib.sha256(admin.password_hash.encode()).hexdigest()
