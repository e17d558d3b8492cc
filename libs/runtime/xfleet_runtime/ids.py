"""Random names: refs, instances, epochs, ids, tokens."""

import secrets
import time


def new_ref() -> int:
    """A 52-bit ref for a client or an inbound; the caller's database makes sure it is new."""
    return secrets.randbelow(2**52 - 2**40) + 2**40


def new_id() -> str:
    """128 bits in hex whose first 48 are Unix milliseconds, so that ids sort by time."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def new_epoch() -> str:
    """96 random bits in hex."""
    return secrets.token_hex(12)


def new_token() -> str:
    """256 random bits, URL-safe: sessions, API tokens, codes that machines carry."""
    return secrets.token_urlsafe(32)
