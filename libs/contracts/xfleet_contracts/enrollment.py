"""Enrollment: a new agent trades a one-time token for an identity of its own.

Subject  fleet.enroll.<token id> (new agent -> controller, request-reply, under the token's own credentials)
Rhythm   once per machine
Loss     repeated; the same token with the same keys gets the same answer, with other keys it is refused with an alarm

Private keys never leave the agent: it sends its nkey's public part and a certificate request, of which the issuer
takes the public key only. Everything the agent will trust is pinned by the fleet root key inside the token.
"""

from xfleet_contracts.message import Message, Secret, SecretBytes, Slug


class EnrollmentToken(Message, frozen=True, kw_only=True):
    """What the pasted line carries, as base64url of its JSON. Valid once, 15 minutes by default."""

    version: int = 1
    token_id: str
    broker_urls: tuple[str, ...]
    tls_name: str
    ca_pem: str
    root_public_key: bytes
    """The fleet root's Ed25519 public key (32 bytes): the one thing an agent pins."""
    jwt: Secret
    seed: Secret
    cert_pem: str
    key_pem: Secret


class EnrollRequest(Message, frozen=True, kw_only=True):
    """Asks for an identity."""

    nkey: str
    """Public user nkey that the agent just made."""
    csr_pem: str
    agent_version: str = ""
    hostname: str = ""
    machine: str = ""
    """What the machine calls itself: os, kernel, arch."""


class EnrollAnswer(Message, frozen=True, kw_only=True):
    """The identity."""

    sid: Slug
    jwt: Secret
    cert_pem: str
    manifest: "SignedManifest"


class CommandKey(Message, frozen=True, kw_only=True):
    """A key that may sign commands; one per controller."""

    id: str
    public_key: bytes
    """Ed25519, 32 bytes."""


RENEW_PATH = "/agent/v1/renew"
RENEW_HEADER = "Xf-Renew"
RENEW_CONTEXT = b"xfleet-renew-v1\0"


class Manifest(Message, frozen=True, kw_only=True):
    """What agents believe about their fleet, signed by the fleet root; only a higher serial replaces it."""

    fleet_id: str
    serial: int
    issued_at_ms: int
    command_keys: tuple[CommandKey, ...]
    ca_pem: str
    broker_urls: tuple[str, ...]
    tls_name: str
    panel_urls: tuple[str, ...] = ()


class SignedManifest(Message, frozen=True, kw_only=True):
    """A manifest with the fleet root's signature: accepted from any channel (also `fleet.cmd.<sid>.manifest`)."""

    payload: bytes
    signature: bytes


class HttpsRenewal(Message, frozen=True, kw_only=True):
    """Body of HTTPS `POST /agent/v1/renew`: the way back for an agent whose credentials expired unrevoked.

    Header `Xf-Renew: <signature>`: the agent's own nkey over `xfleet-renew-v1` NUL and the body as sent, base64url.
    The answer is a `Reply` with an `EnrollAnswer`; an agent takes it only if the fleet root signed its manifest.
    """

    sid: Slug
    request: EnrollRequest
    issued_at_ms: int
    nonce: str


class AgentIdentity(Message, frozen=True, kw_only=True):
    """What an enrolled agent keeps, in a file of mode 0600."""

    sid: Slug
    root_public_key: bytes
    nkey_seed: Secret
    jwt: Secret
    key_pem: Secret
    cert_pem: str
    manifest: SignedManifest


class Sealed(Message, frozen=True, kw_only=True):
    """Bytes under the key file; `name` is bound to them."""

    name: str
    nonce: bytes
    box: SecretBytes
