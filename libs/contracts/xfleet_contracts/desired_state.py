"""Desired state: everything Xray on one server should run, as entities by kind and id.

The controller's database is the only authority. Agents keep each entity's bytes as received, because digests are
taken over bytes: an entity never changes by being decoded and encoded again.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Literal

import msgspec

from xfleet_contracts.message import Message, Ref, Revision, Secret

Kind = Literal["inbound", "client", "outbound", "rule", "settings", "certificate"]
EMPTY_DIGEST = sha256(b"").hexdigest()


class EntityKey(Message, frozen=True, kw_only=True, order=True):
    """Names one entity of a server."""

    kind: Kind
    id: str


class Entity(Message, frozen=True, kw_only=True):
    """One entity with its body as it was stored."""

    kind: Kind
    id: str
    body: msgspec.Raw

    @property
    def key(self) -> EntityKey:
        """Its name."""
        return EntityKey(kind=self.kind, id=self.id)


class InboundBody(Message, frozen=True, kw_only=True):
    """kind `inbound`, id = its ref: an inbound without its clients; the objects are Xray's own JSON."""

    ref: Ref
    listen: str = ""
    """Empty: all addresses."""
    port: int
    protocol: str
    settings: dict[str, Any]
    stream_settings: dict[str, Any] = {}
    sniffing: dict[str, Any] = {}


class ClientBody(Message, frozen=True, kw_only=True):
    """kind `client`, id = `<client ref>.<inbound ref>`: one client on one inbound."""

    client: Ref
    inbound: Ref
    expires_at_ms: int | None = None
    """Unix milliseconds after which the agent disconnects it alone; None: never."""
    uuid: Secret = ""
    """VLESS and VMess."""
    flow: str = ""
    password: Secret = ""
    """Trojan, Shadowsocks, Hysteria2."""


class OutboundBody(Message, frozen=True, kw_only=True):
    """kind `outbound`, id = its tag; the first by `position` is Xray's default."""

    position: int = 0
    tag: str
    protocol: str
    settings: dict[str, Any] = {}
    stream_settings: dict[str, Any] = {}
    mux: dict[str, Any] = {}
    send_through: str = ""


class RuleBody(Message, frozen=True, kw_only=True):
    """kind `rule`, id = its ruleTag: one routing rule in Xray's own JSON, ordered by `position`."""

    position: int = 0
    rule: dict[str, Any]


class SettingsBody(Message, frozen=True, kw_only=True):
    """kind `settings`, id = `xray`: what Xray cannot change while it runs."""

    log_level: str = "warning"
    access_log: bool = False
    policy: dict[str, Any] = {}
    dns: dict[str, Any] = {}
    domain_strategy: str = "AsIs"


class CertificateBody(Message, frozen=True, kw_only=True):
    """kind `certificate`, id = its name: a domain certificate that inbounds of this server use."""

    name: str
    certificate_pem: str
    key_pem: Secret


BODY_OF: dict[str, type[Message]] = {
    "inbound": InboundBody,
    "client": ClientBody,
    "outbound": OutboundBody,
    "rule": RuleBody,
    "settings": SettingsBody,
    "certificate": CertificateBody,
}


class StatePoint(Message, frozen=True, kw_only=True):
    """A moment of a server's desired state; two are the same only if both parts are."""

    revision: Revision = 0
    digest: str = EMPTY_DIGEST


class Difference(Message, frozen=True, kw_only=True):
    """What leads from one point to another."""

    base: StatePoint
    target: StatePoint
    put: tuple[Entity, ...] = ()
    remove: tuple[EntityKey, ...] = ()


class SnapshotManifest(Message, frozen=True, kw_only=True):
    """A whole desired state, its entities in chunks asked for by SHA-256 (`rpc state`)."""

    target: StatePoint
    chunks: tuple[str, ...] = ()
    entities_count: int = 0


class SnapshotChunk(Message, frozen=True, kw_only=True):
    """Some entities of a snapshot; its bytes hash to the digest in the manifest."""

    entities: tuple[Entity, ...]


def digest_of(bodies: Mapping[EntityKey, bytes]) -> str:
    """SHA-256 in hex over the sorted lines `kind NUL id NUL sha256(body) LF` of all entities."""
    return digest_of_hashes({key: sha256(body).hexdigest() for key, body in bodies.items()})


def digest_of_hashes(hashes: Mapping[EntityKey, str]) -> str:
    """As `digest_of`, from the entities' own SHA-256 in hex."""
    total = sha256()
    for key in sorted(hashes):
        total.update(f"{key.kind}\0{key.id}\0{hashes[key]}\n".encode())
    return total.hexdigest()


def difference_of(
    old: Mapping[EntityKey, bytes], new: Mapping[EntityKey, bytes], *, base_revision: int, target_revision: int
) -> Difference:
    """What turns `old` into `new`; entities and removals come in a stable order."""
    put = tuple(
        Entity(kind=key.kind, id=key.id, body=msgspec.Raw(body))
        for key, body in sorted(new.items())
        if old.get(key) != body
    )
    return Difference(
        base=StatePoint(revision=base_revision, digest=digest_of(old)),
        target=StatePoint(revision=target_revision, digest=digest_of(new)),
        put=put,
        remove=tuple(key for key in sorted(old) if key not in new),
    )


def applied_to(
    bodies: Mapping[EntityKey, bytes], put: Iterable[Entity], remove: Iterable[EntityKey]
) -> dict[EntityKey, bytes]:
    """The entities after a difference."""
    after = dict(bodies)
    for key in remove:
        after.pop(key, None)
    for entity in put:
        after[entity.key] = bytes(entity.body)
    return after
