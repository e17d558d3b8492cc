"""Signatures that outlive the broker's word: commands and answers by a controller's key, manifests by the fleet root.

A command's header is `Xf-Sig: v1 <key id> <base64url signature>` over `xfleet-cmd-v1` NUL subject NUL payload as sent,
so it is checked before anything is parsed and cannot be moved to another subject. An answer to an agent's call has the
same header over `xfleet-rpc-v1` and all of what it answers, so that it fits no other call and no other question.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Self

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from xfleet_contracts import codec
from xfleet_contracts.commands import ANSWER_CONTEXT, SIGNATURE_CONTEXT
from xfleet_contracts.enrollment import CommandKey, Manifest, SignedManifest
from xfleet_contracts.errors import Refusal
from xfleet_runtime.keys.nkeys import BadKeyError

SCHEME = "v1"
_MANIFEST_DOMAIN = b"xfleet-manifest-v1\0"
_KEY_BYTES = 32


class SignatureMissing(Refusal):
    """A message without a signature header."""

    code = "signature_missing"
    status = 401
    message = "The message carries no signature."


class SignatureMalformed(Refusal):
    """A signature header that cannot be read."""

    code = "signature_malformed"
    status = 401
    message = "The message's signature cannot be read."


class SignatureKeyUnknown(Refusal):
    """A message signed by a key the manifest does not name."""

    code = "signature_key_unknown"
    status = 401
    message = "The message is signed by a key that is not trusted here."


class SignatureWrong(Refusal):
    """A signature that does not fit the subject and the bytes."""

    code = "signature_wrong"
    status = 401
    message = "The message's signature does not fit its subject and contents."


class ManifestUntrusted(Refusal):
    """A manifest that the pinned fleet root did not sign."""

    code = "manifest_untrusted"
    status = 401
    message = "The manifest is not signed by this fleet's root key."


class SigningKey:
    """An Ed25519 key for commands or manifests; `repr` shows its id only."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public: bytes = private.public_key().public_bytes_raw()
        """The public key, 32 bytes."""
        self.id: str = key_id(self.public)

    @classmethod
    def generate(cls) -> Self:
        """A new random key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """The key of a 32-byte seed; `BadKeyError` for another length."""
        if len(seed) != _KEY_BYTES:
            raise BadKeyError("a signing key's seed has 32 bytes")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def seed(self) -> bytes:
        """The secret, 32 bytes."""
        return self._private.private_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature over `data`; callers put a domain in front."""
        return self._private.sign(data)

    def __repr__(self) -> str:
        return f"SigningKey({self.id})"


def key_id(public: bytes) -> str:
    """A short stable name of a public key: 16 letters of the base32 of its SHA-256."""
    return base64.b32encode(hashlib.sha256(public).digest()).decode()[:16].lower()


def command_key(key: SigningKey) -> CommandKey:
    """The public half as the manifest lists it."""
    return CommandKey(id=key.id, public_key=key.public)


def sign_command(key: SigningKey, subject: str, payload: bytes) -> str:
    """The value of the signature header for these bytes on that subject."""
    return _header(key, _command_bytes(subject, payload))


def verify_command(trusted: Mapping[str, bytes], header: str | None, subject: str, payload: bytes) -> str:
    """The id of the key that signed these bytes for that subject; `trusted` maps key ids to public keys.

    Raises `SignatureMissing`, `SignatureMalformed`, `SignatureKeyUnknown` or `SignatureWrong`.
    """
    return _verify(trusted, header, subject, _command_bytes(subject, payload))


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A call as it was made: what an answer to it is bound to."""

    reply: str
    """The subject the asker wants the answer on."""
    subject: str
    question: bytes
    """The payload of the call, as sent."""


def sign_answer(key: SigningKey, asked: Asked, payload: bytes) -> str:
    """The value of the signature header for these bytes as the answer to that call."""
    return _header(key, _answer_bytes(asked, payload))


def verify_answer(trusted: Mapping[str, bytes], header: str | None, asked: Asked, payload: bytes) -> str:
    """The id of the key that gave these bytes as the answer to that call. Raises as `verify_command` does."""
    return _verify(trusted, header, asked.subject, _answer_bytes(asked, payload))


def _command_bytes(subject: str, payload: bytes) -> bytes:
    return SIGNATURE_CONTEXT + subject.encode() + b"\0" + payload


def _answer_bytes(asked: Asked, payload: bytes) -> bytes:
    question = hashlib.sha256(asked.question).hexdigest()
    return ANSWER_CONTEXT + f"{asked.reply}\0{asked.subject}\0{question}\0".encode() + payload


def _header(key: SigningKey, data: bytes) -> str:
    return f"{SCHEME} {key.id} {base64.urlsafe_b64encode(key.sign(data)).decode().rstrip('=')}"


def _verify(trusted: Mapping[str, bytes], header: str | None, subject: str, data: bytes) -> str:
    if not header:
        raise SignatureMissing(subject=subject)
    scheme, _, rest = header.partition(" ")
    signer, _, text = rest.partition(" ")
    if scheme != SCHEME or not signer or not text:
        raise SignatureMalformed(subject=subject)
    try:
        signature = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as cause:
        raise SignatureMalformed(subject=subject) from cause
    if signer not in trusted:
        raise SignatureKeyUnknown(subject=subject, key_id=signer)
    if not _genuine(trusted[signer], signature, data):
        raise SignatureWrong(subject=subject, key_id=signer)
    return signer


def sign_manifest(root: SigningKey, manifest: Manifest) -> SignedManifest:
    """The manifest as bytes with the fleet root's signature."""
    payload = codec.encode(manifest)
    return SignedManifest(payload=payload, signature=root.sign(_MANIFEST_DOMAIN + payload))


def open_manifest(root_public: bytes, signed: SignedManifest) -> Manifest:
    """The manifest inside, if the pinned root signed it. Comparing serials is the caller's part.

    Raises `ManifestUntrusted`, or `MessageMalformed` for genuine bytes this version cannot read.
    """
    if not _genuine(root_public, signed.signature, _MANIFEST_DOMAIN + signed.payload):
        raise ManifestUntrusted
    return codec.decode(signed.payload, Manifest)


def trusted_keys(manifest: Manifest) -> dict[str, bytes]:
    """The manifest's command keys in the form `verify_command` takes."""
    return {key.id: key.public_key for key in manifest.command_keys}


def _genuine(public: bytes, signature: bytes, data: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True
