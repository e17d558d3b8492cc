"""NATS JWTs, version 2: the signed claims by which the broker knows operators, accounts and users.

Source of the shapes: nats-io/jwt v2. A user issued by a *scoped* signing key carries no permissions or limits of its
own; the broker refuses one that does, and applies the scope's template from the account's JWT.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from xfleet_runtime.keys import nkeys
from xfleet_runtime.keys.nkeys import KeyPair, Kind

NO_LIMIT = -1
_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}
_VERSION = 2
_NS_PER_S = 1_000_000_000


class BadJwtError(ValueError):
    """A token is malformed or not signed by whom it names."""


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a token says; `nats` holds the part that differs by type."""

    sub: str
    iss: str
    iat: int
    """Unix seconds of issue. Revocation compares with it, so it never moves backwards."""
    exp: int = 0
    """Unix seconds of expiry; 0 never."""
    jti: str = ""
    name: str = ""
    nats: dict[str, Any] = {}

    @property
    def type(self) -> str:
        """`operator`, `account` or `user`."""
        return str(self.nats.get("type", ""))


class SubjectRights(msgspec.Struct, frozen=True):
    """Subjects a connection may use in one direction."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """What every user of one scoped signing key may do; subjects may contain `{{name()}}`."""

    publish: SubjectRights
    subscribe: SubjectRights
    responses_max: int = 0
    """Replies allowed per received request beyond `publish`; 0 means none."""
    responses_ttl_s: int = 0
    subscriptions_max: int = NO_LIMIT
    payload_max_bytes: int = NO_LIMIT
    connection_types: tuple[str, ...] = ("STANDARD",)

    def to_claims(self) -> dict[str, Any]:
        """The template as the account JWT spells it."""
        claims: dict[str, Any] = {
            "pub": msgspec.to_builtins(self.publish),
            "sub": msgspec.to_builtins(self.subscribe),
            "subs": self.subscriptions_max,
            "data": NO_LIMIT,
            "payload": self.payload_max_bytes,
            "allowed_connection_types": list(self.connection_types),
        }
        if self.responses_max:
            claims["resp"] = {"max": self.responses_max, "ttl": self.responses_ttl_s * _NS_PER_S}
        return claims


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """A signing key of an account together with the only thing its users may be."""

    role: str
    public: str
    template: Template

    def to_claims(self) -> dict[str, Any]:
        """The scope as the account JWT spells it."""
        return {"kind": "user_scope", "key": self.public, "role": self.role, "template": self.template.to_claims()}


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def encode(
    signer: KeyPair, *, subject: str, name: str, issued_at: int, nats: Mapping[str, Any], expires_at: int = 0
) -> str:
    """A token about `subject`, signed; times are Unix seconds and `expires_at` 0 means never."""
    body: dict[str, Any] = {
        "iat": issued_at,
        "iss": signer.public,
        "name": name,
        "sub": subject,
        "nats": {**nats, "version": _VERSION},
    }
    if expires_at:
        body["exp"] = expires_at
    digest = hashlib.sha256(msgspec.json.encode(body, order="deterministic")).digest()
    body["jti"] = base64.b32encode(digest).decode().rstrip("=")
    signed = f"{_b64(msgspec.json.encode(_HEADER))}.{_b64(msgspec.json.encode(body))}"
    return f"{signed}.{_b64(signer.sign(signed.encode()))}"


def decode(token: str) -> Claims:
    """The claims of a token whose signature by its issuer is right; who may issue is the caller's question."""
    try:
        header, body, signature = token.strip().split(".")
        claims = msgspec.json.decode(_unb64(body), type=Claims)
        algorithm = msgspec.json.decode(_unb64(header), type=dict[str, str]).get("alg")
        genuine = nkeys.verify(claims.iss, f"{header}.{body}".encode(), _unb64(signature))
    except (ValueError, binascii.Error, msgspec.MsgspecError) as cause:
        raise BadJwtError("not a NATS JWT") from cause
    if algorithm != _HEADER["alg"] or not genuine:
        raise BadJwtError("the JWT's signature is wrong")
    return claims


def operator_jwt(
    operator: KeyPair, *, name: str, signing_keys: Sequence[str], system_account: str, issued_at: int
) -> str:
    """The self-signed token of the operator; it must stay byte-identical for the life of a fleet (nats.md §1.5)."""
    for key in signing_keys:
        nkeys.require_public(key, Kind.OPERATOR)
    nats = {"type": "operator", "signing_keys": list(signing_keys), "system_account": system_account}
    return encode(operator, subject=operator.public, name=name, issued_at=issued_at, nats=nats)


def account_jwt(
    operator_signer: KeyPair,
    *,
    account: str,
    name: str,
    scopes: Sequence[Scope],
    revocations: Mapping[str, int],
    jetstream: bool,
    serial: int,
    issued_at: int,
) -> str:
    """The token of an account: who may sign users for it, as what, and which user keys are revoked up to which `iat`.

    `serial` travels as a tag, so that what a broker node holds can be compared with what was meant.
    """
    nkeys.require_public(account, Kind.ACCOUNT)
    storage = NO_LIMIT if jetstream else 0
    nats: dict[str, Any] = {
        "type": "account",
        "limits": {
            "subs": NO_LIMIT,
            "data": NO_LIMIT,
            "payload": NO_LIMIT,
            "imports": NO_LIMIT,
            "exports": NO_LIMIT,
            "wildcards": True,
            "disallow_bearer": True,
            "conn": NO_LIMIT,
            "leaf": 0,
            "mem_storage": storage,
            "disk_storage": storage,
            "streams": storage,
            "consumer": storage,
        },
        "signing_keys": [scope.to_claims() for scope in scopes],
        "revocations": dict(sorted(revocations.items())),
        "default_permissions": {"pub": {}, "sub": {}},
        "tags": [f"serial:{serial}"],
    }
    return encode(operator_signer, subject=account, name=name, issued_at=issued_at, nats=nats)


def user_jwt(
    scoped_signer: KeyPair, *, account: str, name: str, public: str, issued_at: int, expires_at: int = 0
) -> str:
    """The token of one user under a scoped signing key: name, key and expiry, and deliberately nothing else."""
    nkeys.require_public(public, Kind.USER)
    nats = {"type": "user", "issuer_account": account}
    return encode(scoped_signer, subject=public, name=name, issued_at=issued_at, nats=nats, expires_at=expires_at)


def revocations_of(claims: Claims) -> dict[str, int]:
    """The revocations an account's token carries: user key to the `iat` up to which its tokens are dead."""
    return msgspec.convert(claims.nats.get("revocations") or {}, dict[str, int])


def serial_of(claims: Claims) -> int:
    """The serial an account's token was built with; 0 when it carries none."""
    tags = msgspec.convert(claims.nats.get("tags") or [], list[str])
    return max((int(tag[7:]) for tag in tags if tag.startswith("serial:") and tag[7:].isdigit()), default=0)
