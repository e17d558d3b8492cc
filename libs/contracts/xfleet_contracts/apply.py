"""Apply: the controller sends wanted state, the agent answers what became of it.

Subject  fleet.cmd.<sid>.state.apply (controller -> agent, signed request-reply)
Rhythm   one in flight per server, whenever its desired revision is ahead of what the agent confirmed
Loss     repeated with the same command id; a wrong base is answered by `base_mismatch` and the agent's own point

Calls    fleet.rpc.<sid>.state: the agent asks for a chunk of the snapshot it was offered
"""

from typing import Literal

from xfleet_contracts.desired_state import Difference, EntityKey, SnapshotManifest, StatePoint
from xfleet_contracts.message import Message, Revision

APPLY = "state.apply"
BASE_MISMATCH = "base_mismatch"
SNAPSHOT_GONE = "snapshot_gone"


class ApplyOrder(Message, frozen=True, kw_only=True):
    """Exactly one of the two is set."""

    difference: Difference | None = None
    snapshot: SnapshotManifest | None = None


class Degraded(Message, frozen=True, kw_only=True):
    """One entity that Xray or our lint refused; its last good version goes on running."""

    key: EntityKey
    path: str
    """Where the culprit is, such as `inbounds[443].streamSettings.realitySettings.privateKey`."""
    code: str
    reason: str
    kept: Literal["previous", "absent"] = "absent"
    """What runs instead."""


class ApplyReport(Message, frozen=True, kw_only=True):
    """What became of an apply."""

    point: StatePoint
    """The wanted state the agent now holds."""
    applied_revision: Revision
    degraded: tuple[Degraded, ...] = ()
    steps_count: int = 0
    restarted: bool = False
    """Whether Xray had to be handed over for it."""
    took_ms: int = 0


class ChunkRequest(Message, frozen=True, kw_only=True):
    """`rpc state`: the chunk with this SHA-256."""

    revision: int
    chunk: str
