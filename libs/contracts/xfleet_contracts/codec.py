"""Bytes to messages and back: JSON, size-limited, with redaction of what is marked secret.

The sender of a message is read from its subject, which the broker enforces, never from the payload.
"""

import hashlib
from typing import Any, TypeVar, cast, get_args

import msgspec

from xfleet_contracts.errors import MessageMalformed, MessageTooLarge
from xfleet_contracts.message import MAX_MESSAGE_BYTES

T = TypeVar("T")

REDACTED = "[redacted]"

SECRET_KEYS = frozenset(
    {
        "privatekey", "password", "pass", "id", "auth", "secretkey", "mldsa65seed", "decryption", "encryption", "key",
        "echserverkeys", "presharedkey", "seed", "token", "secret", "certificate", "credentials",
    },
)  # fmt: skip
"""Keys of Xray's own JSON (lower case) whose values are secret wherever they stand."""

_encoder = msgspec.json.Encoder(order="deterministic")


def encode(message: Any) -> bytes:
    """The message as JSON bytes, at most `MAX_MESSAGE_BYTES`, keys in a stable order. Raises `MessageTooLarge`."""
    data = _encoder.encode(message)
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageTooLarge(size_bytes=len(data), limit_bytes=MAX_MESSAGE_BYTES)
    return data


def canonical(value: Any) -> bytes:
    """The value as JSON with sorted keys and no limit of size: what digests are taken over."""
    return _encoder.encode(value)


def decode(data: bytes, kind: type[T]) -> T:
    """The message of this kind in these bytes. Raises `MessageTooLarge` or `MessageMalformed`, which says where."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageTooLarge(size_bytes=len(data), limit_bytes=MAX_MESSAGE_BYTES)
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageMalformed(f"The message could not be read: {error}", kind=kind.__name__) from error


def sha256_hex(data: bytes) -> str:
    """SHA-256 of the bytes in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def redact(message: Any) -> Any:
    """The message as plain JSON values with every secret replaced by `[redacted]`.

    Fields marked `Secret` go by their mark; inside Xray's free-form JSON the names in `SECRET_KEYS` decide.
    """
    if isinstance(message, msgspec.Struct):
        kept: dict[str, Any] = {}
        for field in msgspec.structs.fields(message):
            value = getattr(message, field.name)
            hidden = _is_secret(field.type) and value is not None
            kept[field.encode_name] = REDACTED if hidden else redact(value)
        return kept
    if isinstance(message, msgspec.Raw):
        return redact(msgspec.json.decode(message)) if bytes(message) else None
    if isinstance(message, dict):
        pairs = cast("dict[Any, Any]", message).items()
        return {
            str(key): REDACTED if str(key).lower() in SECRET_KEYS and value else redact(value) for key, value in pairs
        }
    if isinstance(message, (list, tuple)):
        return [redact(item) for item in cast("list[Any]", message)]
    return msgspec.to_builtins(message)


def _is_secret(kind: Any) -> bool:
    marks = getattr(kind, "__metadata__", ())
    if any(isinstance(mark, msgspec.Meta) and (mark.extra or {}).get("secret") for mark in marks):
        return True
    return any(_is_secret(part) for part in get_args(kind))
