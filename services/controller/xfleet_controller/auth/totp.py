"""Time-based one-time codes (RFC 6238) and recovery codes. Pure, save for what is drawn by chance."""

import base64
import hashlib
import hmac
import secrets
from urllib.parse import quote, urlencode

STEP_S = 30
DIGITS_COUNT = 6
SECRET_BYTES = 20
WINDOW_STEPS = 1
"""How many steps a phone's clock may be early or late."""
RECOVERY_COUNT = 10
RECOVERY_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
RECOVERY_LENGTH = 16
"""80 bits: a stolen database does not give the codes away."""


def new_secret() -> bytes:
    """A secret to share with an authenticator app."""
    return secrets.token_bytes(SECRET_BYTES)


def secret_text(secret: bytes) -> str:
    """The secret as people type it into an app."""
    return base64.b32encode(secret).decode().rstrip("=")


def app_url(secret: bytes, *, issuer: str, account: str) -> str:
    """What the QR code says: `otpauth://totp/…`."""
    label = f"{quote(issuer, safe='')}:{quote(account, safe='')}"
    query = {"secret": secret_text(secret), "issuer": issuer, "algorithm": "SHA1", "digits": DIGITS_COUNT}
    return f"otpauth://totp/{label}?{urlencode(query | {'period': STEP_S}, quote_via=quote)}"


def code_at(secret: bytes, counter: int) -> str:
    """The code of one step."""
    digest = hmac.new(secret, counter.to_bytes(8, "big"), hashlib.sha1).digest()
    offset = digest[-1] & 0x0F
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    return f"{number % 10**DIGITS_COUNT:0{DIGITS_COUNT}}"


def counter_of(secret: bytes, code: str, now_s: float, last_counter: int | None) -> int | None:
    """The step of this code, at most one beside now and later than the last used one; None if the code is wrong."""
    given = code.replace(" ", "")
    if len(given) != DIGITS_COUNT or not given.isascii() or not given.isdecimal():
        return None
    now = int(now_s) // STEP_S
    found = None
    for counter in range(now - WINDOW_STEPS, now + WINDOW_STEPS + 1):
        fits = secrets.compare_digest(code_at(secret, max(counter, 0)), given)
        if fits and (last_counter is None or counter > last_counter):
            found = counter if found is None else found
    return found


def new_recovery_codes() -> tuple[str, ...]:
    """Codes to keep on paper, each good for one sign-in."""
    return tuple(_new_recovery_code() for _ in range(RECOVERY_COUNT))


def recovery_hash(code: str) -> str | None:
    """What the database keeps of a recovery code, however it was typed; None for what cannot be one."""
    letters = code.replace("-", "").replace(" ", "").upper()
    if len(letters) != RECOVERY_LENGTH or not set(letters) <= set(RECOVERY_LETTERS):
        return None
    return hashlib.sha256(letters.encode()).hexdigest()


def _new_recovery_code() -> str:
    letters = "".join(secrets.choice(RECOVERY_LETTERS) for _ in range(RECOVERY_LENGTH))
    return "-".join(letters[at : at + 4] for at in range(0, len(letters), 4))
