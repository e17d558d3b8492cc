"""Care: domain certificates, checks and backups on an agent's machine, and blobs for answers that are too big.

Subject  fleet.cmd.<sid>.certs.list/.certs.get/.certs.generate/.checks.run/.backup/.restore/.state.read;
         fleet.up.<sid>.blob.<transfer> (agent -> controller, each part acknowledged)
Rhythm   on demand
Loss     repeated; a blob's part is sent again until it was acknowledged or its order's time is over
"""

from typing import Literal

from xfleet_contracts.desired_state import Entity, StatePoint
from xfleet_contracts.errors import Refusal
from xfleet_contracts.message import Message, Number, SecretBytes

CERTS_LIST = "certs.list"
CERTS_GET = "certs.get"
CERTS_GENERATE = "certs.generate"
CHECKS_RUN = "checks.run"
BACKUP = "backup"
RESTORE = "restore"
BLOB = "blob"
"""Method of `fleet.rpc.<sid>.blob`."""
STATE_READ = "state.read"
MAX_BLOB_BYTES = 64 * 1024 * 1024
BLOB_PART_BYTES = 128 * 1024


class CertificateUnknown(Refusal):
    """There is no such certificate on the server."""

    code = "certificate_unknown"
    status = 404
    message = "There is no such certificate on this server."


class DomainWrong(Refusal):
    """A name no certificate can be made for."""

    code = "domain_wrong"
    status = 422
    message = "This is neither a host name nor an IP address."


class ArchiveRefused(Refusal):
    """An archive with something else in it than certificates and geo files, or too much of it."""

    code = "archive_refused"
    status = 422
    message = "The archive holds something that does not belong there; nothing was restored."


class CertificateInfo(Message, frozen=True, kw_only=True):
    """A domain certificate on a server's disk, made there or brought there."""

    name: str
    domains: tuple[str, ...] = ()
    issuer: str = ""
    self_signed: bool = False
    not_before_ms: Number = 0
    not_after_ms: Number = 0
    sha256: str = ""
    """Fingerprint of the certificate in hex."""
    certificate_path: str = ""
    """For `certificateFile` and `keyFile` of an inbound."""
    key_path: str = ""


class CertificateList(Message, frozen=True, kw_only=True):
    """Answer to `certs.list`."""

    certificates: tuple[CertificateInfo, ...] = ()


class CertificateGenerate(Message, frozen=True, kw_only=True):
    """Body of `certs.generate`: a self-signed certificate whose key never leaves the server."""

    domains: tuple[str, ...]
    """Host names or IP addresses; the first names it."""
    days_count: int = 365


class CertificateName(Message, frozen=True, kw_only=True):
    """Body of `certs.get`."""

    name: str


class CertificatePem(Message, frozen=True, kw_only=True):
    """Answer to `certs.get`: never the key."""

    info: CertificateInfo
    certificate_pem: str


class ChecksRun(Message, frozen=True, kw_only=True):
    """Body of `checks.run`: what to try from that machine; without anything, the machine itself."""

    tls_targets: tuple[str, ...] = ()
    """`host:port`: is TLS 1.3 with X25519 and h2 spoken there, as Reality wants it? At most 8."""
    free_ports: tuple[int, ...] = ()
    """Can an inbound listen there? At most 32."""


class CheckResult(Message, frozen=True, kw_only=True):
    """What came of one check."""

    name: str
    """`xray`, `disk`, `clock`, `broker`, `spool`, `tls example.com:443`, `port 443`, …"""
    status: Literal["ok", "warning", "failed"]
    text: str = ""
    took_ms: Number = 0


class ChecksDone(Message, frozen=True, kw_only=True):
    """Answer to `checks.run`."""

    results: tuple[CheckResult, ...] = ()


class BackupOrder(Message, frozen=True, kw_only=True):
    """Body of `backup`: an archive of what only this machine has, as a blob."""

    transfer: str
    """Lower-case letters and digits, chosen by the controller; the last token of the blob's subject."""


class BlobPart(Message, frozen=True, kw_only=True):
    """A part of a blob, on fleet.up.<sid>.blob.<transfer>; answered with `Reply` and then followed by the next."""

    index: Number
    parts_count: Number
    data: SecretBytes


class BlobSent(Message, frozen=True, kw_only=True):
    """Answer to `backup`, after all parts were acknowledged."""

    transfer: str
    size_bytes: Number
    sha256: str
    parts_count: Number


class RestoreOrder(Message, frozen=True, kw_only=True):
    """Body of `restore`: puts back domain certificates and geo files; desired state stays the controller's."""

    transfer: str
    size_bytes: Number
    sha256: str
    parts_count: Number


class BlobAsk(Message, frozen=True, kw_only=True):
    """Body of `rpc blob`: an agent fetches a part of what it was told to restore; answered with `BlobPart`."""

    transfer: str
    index: Number


class Restored(Message, frozen=True, kw_only=True):
    """Answer to `restore`."""

    certificates: tuple[str, ...] = ()
    geo_files: tuple[str, ...] = ()


class StateRead(Message, frozen=True, kw_only=True):
    """Body of `state.read`: a page of the desired state the agent holds, in the order of its keys."""

    offset: Number = 0


class StateHeld(Message, frozen=True, kw_only=True):
    """Answer to `state.read`: as many entities as fit."""

    point: StatePoint
    entities: tuple[Entity, ...] = ()
    total_count: Number = 0
