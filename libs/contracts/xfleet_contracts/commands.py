"""Commands: signed orders from a controller to one agent.

Subject  fleet.cmd.<sid>.<verb> (controller -> agent, request-reply; see `UNREPLIED` for those without an answer)
Rhythm   on demand
Loss     a timeout means "outcome unknown": repeat with the same id, the agent joins the running one or answers again

Header `Xf-Sig: v1 <key id> <signature>`: Ed25519 over `xfleet-cmd-v1` NUL subject NUL payload as sent, checked before
anything is parsed. Time is judged on the agent's clock corrected by the offset it learned.

Answers to an agent's own calls on `fleet.rpc.<sid>.<method>` carry the same header over `xfleet-rpc-v1` NUL reply
subject NUL call subject NUL SHA-256 of the question's payload in hex NUL answer's payload as sent. The agent drops all
other answers, for the broker could else tell it what the ledger holds. Enrollment is outside: it comes before any key.
"""

from typing import Any, Literal

import msgspec

from xfleet_contracts.errors import ErrorBody
from xfleet_contracts.heartbeat import HostFigures, SpoolState
from xfleet_contracts.message import ByteCount, Message, Ref

SIGNATURE_HEADER = "Xf-Sig"
SIGNATURE_CONTEXT = b"xfleet-cmd-v1\0"
ANSWER_CONTEXT = b"xfleet-rpc-v1\0"
REMEMBER_AFTER_EXPIRY_S = 600

CLOCK = "clock"
INSTANCE = "instance"
REUSED_ID = "reused_id"
INTERRUPTED = "interrupted"
UNKNOWN_VERB = "unknown_verb"
RATE_LIMITED = "rate_limited"

UNREPLIED = frozenset({"receipt", "fork", "allowance", "manifest", "log.lease"})
"""Verbs without an answer: the latest wins, a loss is harmless."""

TIMEOUT_S: dict[str, float] = {
    "health": 5,
    "info": 5,
    "traffic.read": 10,
    "clients.online": 10,
    "system.stats": 10,
    "state.apply": 15,
    "xray.start": 30,
    "xray.stop": 30,
    "xray.restart": 30,
    "xray.version": 10,
    "xray.config": 10,
    "xray.install": 300,
    "geofiles.update": 300,
    "agent.update": 300,
    "logs.read": 10,
    "certs.list": 10,
    "certs.get": 10,
    "certs.generate": 30,
    "checks.run": 30,
    "state.read": 15,
    "backup": 60,
    "restore": 60,
}
DEFAULT_TIMEOUT_S = 15

Weight = Literal["read", "write", "heavy", "state"]
WEIGHTS: dict[str, Weight] = {
    "health": "read",
    "info": "read",
    "traffic.read": "read",
    "clients.online": "read",
    "system.stats": "read",
    "xray.version": "read",
    "xray.config": "read",
    "logs.read": "read",
    "certs.list": "read",
    "certs.get": "read",
    "checks.run": "read",
    "state.read": "read",
    "state.apply": "state",
    "xray.start": "write",
    "xray.stop": "write",
    "xray.restart": "write",
    "certs.generate": "write",
    "xray.install": "heavy",
    "geofiles.update": "heavy",
    "agent.update": "heavy",
    "backup": "heavy",
    "restore": "heavy",
}
"""What a verb costs: `read` leaves nothing behind; `state` is coalesced by its sender and not counted."""
PER_MINUTE: dict[Weight, int] = {"read": 100, "write": 20, "heavy": 5}
"""How many orders of a weight one admin may send to one server in a minute."""


class Command(Message, frozen=True, kw_only=True):
    """The envelope; `sid` and `verb` must match the subject it came on."""

    id: str
    sid: str
    verb: str
    instance: str = ""
    """The agent process it is for; a wrong one is refused with the right one. Unreplied verbs leave it empty."""
    issued_at_ms: int
    expires_at_ms: int
    body: msgspec.Raw = msgspec.Raw(b"{}")


class Reply(Message, frozen=True, kw_only=True):
    """Every answer to a request, from agents, controllers and the enrollment desk alike."""

    ok: bool
    data: msgspec.Raw = msgspec.Raw(b"null")
    error: ErrorBody | None = None
    trace_id: str = ""
    took_ms: int = 0


class Nothing(Message, frozen=True, kw_only=True):
    """A body or an answer without fields."""


class AgentInfo(Message, frozen=True, kw_only=True):
    """Answer to `info`."""

    sid: str
    instance: str
    agent_version: str
    xray_version: str
    os: str = ""
    kernel: str = ""
    arch: str = ""
    hostname: str = ""
    python_version: str = ""
    wanted_revision: int = 0
    applied_revision: int = 0
    capabilities: tuple[str, ...] = ()


class AgentHealth(Message, frozen=True, kw_only=True):
    """Answer to `health`: one word per check, and the sentence for each that is not `ok`."""

    ok: bool
    checks: dict[str, str] = {}


class OnlineClients(Message, frozen=True, kw_only=True):
    """Answer to `clients.online`: refs with an open stream."""

    clients: tuple[int, ...] = ()


class XrayConfig(Message, frozen=True, kw_only=True):
    """Answer to `xray.config`: the running configuration without secrets."""

    config: dict[str, Any]


class XrayVersion(Message, frozen=True, kw_only=True):
    """Answer to `xray.version`, `xray.start` and `xray.restart`."""

    version: str
    start_id: str = ""


class TrafficRead(Message, frozen=True, kw_only=True):
    """Body of `traffic.read`: a page of the counters, in the order of their clients."""

    offset: int = 0
    limit: int = 1000
    clients: tuple[Ref, ...] = ()
    """Only these; empty: all."""


class ClientCounters(Message, frozen=True, kw_only=True):
    """What one client moved on one inbound since this Xray started; billing goes by the ledger, not by this."""

    client: Ref
    inbound: Ref
    up_bytes: ByteCount
    down_bytes: ByteCount


class TrafficReading(Message, frozen=True, kw_only=True):
    """Answer to `traffic.read`."""

    start_id: str
    rows: tuple[ClientCounters, ...] = ()
    total_count: int = 0
    """Rows there are in all."""


class SystemStats(Message, frozen=True, kw_only=True):
    """Answer to `system.stats`."""

    host: HostFigures
    spool: SpoolState
    xray_uptime_s: int = 0
    xray_memory_bytes: int = 0
    xray_goroutines_count: int = 0
    agent_memory_bytes: int = 0
    commands_refused: dict[str, int] = {}
    """Refused commands since this agent started, by word."""
