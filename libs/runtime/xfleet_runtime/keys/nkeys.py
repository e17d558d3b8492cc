"""NKeys: Ed25519 keys in NATS's own spelling (base32 of prefix, key and CRC-16), without the `nkeys` package."""

import base64
import binascii
from enum import IntEnum
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_SEED_PREFIX = 18 << 3
_KEY_BYTES = 32
_CRC_BYTES = 2


class BadKeyError(ValueError):
    """A key or seed is not what it claims to be; the message never contains the key itself."""


class Kind(IntEnum):
    """What an nkey identifies; the value is the prefix byte that makes its first letter."""

    ACCOUNT = 0
    OPERATOR = 14 << 3
    USER = 20 << 3

    @property
    def letter(self) -> str:
        """First letter of a public key of this kind."""
        return _encode(bytes([self]) + bytes(_KEY_BYTES))[0]


def _encode(raw: bytes) -> str:
    checksum = binascii.crc_hqx(raw, 0).to_bytes(_CRC_BYTES, "little")
    return base64.b32encode(raw + checksum).decode().rstrip("=")


def _decode(text: str) -> bytes:
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError) as cause:
        raise BadKeyError("not an nkey: it is not base32") from cause
    body, checksum = raw[:-_CRC_BYTES], raw[-_CRC_BYTES:]
    if len(body) <= _KEY_BYTES or binascii.crc_hqx(body, 0).to_bytes(_CRC_BYTES, "little") != checksum:
        raise BadKeyError("not an nkey: its checksum is wrong, so it was cut or mistyped")
    return body


def _kind(prefix: int) -> Kind:
    try:
        return Kind(prefix)
    except ValueError as cause:
        raise BadKeyError("not a user, account or operator nkey") from cause


def parse_public(text: str) -> tuple[Kind, bytes]:
    """Kind and the 32 bytes of a public nkey; `BadKeyError` for anything else, seeds included."""
    body = _decode(text)
    if len(body) != 1 + _KEY_BYTES:
        raise BadKeyError("not a public nkey")
    return _kind(body[0]), body[1:]


def require_public(text: str, kind: Kind) -> str:
    """The same text when it is a public nkey of that kind, else `BadKeyError`."""
    found, _ = parse_public(text)
    if found is not kind:
        raise BadKeyError(f"expected {kind.name.lower()} nkey, got {found.name.lower()} nkey")
    return text


def verify(public: str, data: bytes, signature: bytes) -> bool:
    """Whether `signature` over `data` was made by the holder of that public nkey."""
    _, raw = parse_public(public)
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, data)
    except InvalidSignature:
        return False
    return True


class KeyPair:
    """One nkey with its seed; `repr` shows the public half only."""

    def __init__(self, kind: Kind, raw_seed: bytes) -> None:
        self.kind = kind
        self._raw_seed = raw_seed
        self._private = Ed25519PrivateKey.from_private_bytes(raw_seed)

    @classmethod
    def generate(cls, kind: Kind) -> Self:
        """A new random key of that kind."""
        return cls(kind, Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def from_seed(cls, seed: str) -> Self:
        """The key of a seed (`SU…`, `SA…`, `SO…`); `BadKeyError` when it is cut, mistyped or of another kind."""
        body = _decode(seed.strip())
        if len(body) != 2 + _KEY_BYTES or body[0] & 0xF8 != _SEED_PREFIX:
            raise BadKeyError("not an nkey seed")
        return cls(_kind((body[0] & 0x07) << 5 | body[1] >> 3), body[2:])

    @property
    def seed(self) -> str:
        """The secret, as `from_seed` reads it."""
        prefix = bytes([_SEED_PREFIX | self.kind >> 5, (self.kind & 0x1F) << 3])
        return _encode(prefix + self._raw_seed)

    @property
    def public(self) -> str:
        """The public nkey."""
        return _encode(bytes([self.kind]) + self._private.public_key().public_bytes_raw())

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature over `data`."""
        return self._private.sign(data)

    def __repr__(self) -> str:
        return f"KeyPair({self.public})"
