"""Keys that only a server can make, in the forms Xray and its clients write them."""

import base64
import secrets
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID, uuid4

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

X25519_KEY_BYTES = 32
_SHADOWSOCKS_2022_KEY_BYTES = {
    "2022-blake3-aes-128-gcm": 16,
    "2022-blake3-aes-256-gcm": 32,
    "2022-blake3-chacha20-poly1305": 32,
}


class RealityPair(NamedTuple):
    """An x25519 pair in base64url without padding."""

    private_key: str
    """`privateKey` on the server."""
    public_key: str
    """`password` (formerly `publicKey`) on the client, `pbk` in links."""


def new_reality_pair() -> RealityPair:
    """A fresh pair."""
    raw = bytearray(secrets.token_bytes(X25519_KEY_BYTES))
    raw[0] &= 248
    raw[31] = raw[31] & 127 | 64
    private_key = _base64url(bytes(raw))
    return RealityPair(private_key, reality_public_key(private_key))


@lru_cache(maxsize=1024)
def reality_public_key(private_key: str) -> str:
    """The public half of a REALITY key. Raises ValueError when it is not 32 bytes of base64url."""
    raw = decode_base64url(private_key)
    if len(raw) != X25519_KEY_BYTES:
        raise ValueError("A REALITY key is 32 bytes in base64url without padding.")
    return _base64url(X25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw())


def new_short_id() -> str:
    """Eight random bytes in hex."""
    return secrets.token_hex(8)


def new_uuid() -> str:
    """A random UUID."""
    return str(uuid4())


def is_uuid(text: str) -> bool:
    """Whether this is a UUID in its usual spelling, lower case: what Xray itself gives back."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def new_password() -> str:
    """Twenty-four characters that need no escaping in a link."""
    return secrets.token_urlsafe(18)


def new_shadowsocks_key(method: str) -> str:
    """A key for Shadowsocks 2022, in standard base64. Raises ValueError for another method."""
    size_bytes = _SHADOWSOCKS_2022_KEY_BYTES.get(method)
    if size_bytes is None:
        raise ValueError(f"{method} is not a method of Shadowsocks 2022.")
    return base64.b64encode(secrets.token_bytes(size_bytes)).decode()


def decode_base64url(text: str) -> bytes:
    """The bytes of base64url without padding. Raises ValueError on any other character."""
    if not text.isascii() or "=" in text:
        raise ValueError("Not base64url without padding.")
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
