"""Heartbeat: an agent's "I am alive, and this is what I am running".

Subject  fleet.up.<sid>.hb (agent -> everyone)
Rhythm   every HEARTBEAT_INTERVAL_S with a jittered start, and at once after an apply or a change of state
Loss     harmless: the next one replaces it, so it is never spooled
"""

from typing import Literal

from xfleet_contracts.message import Message, Number, Ref, Revision

HEARTBEAT_INTERVAL_S = 10
OFFLINE_AFTER_S = 35
STALE_AFTER_S = 25
MAX_ONLINE_REFS = 8000


class XrayState(Message, frozen=True, kw_only=True):
    """The Xray that this agent drives."""

    status: Literal["running", "starting", "stopped", "crashed"]
    version: str = ""
    start_id: str = ""
    """New whenever the process is; counters belong to one start."""
    pid: Number = 0
    uptime_s: Number = 0
    restarts_count: Number = 0
    """Restarts by this agent since it first ran on this machine."""
    last_error: str = ""
    source: str = ""
    """`bundled`, or the version that was installed over the bus."""


class HostFigures(Message, frozen=True, kw_only=True):
    """The machine, as psutil sees it."""

    cpu_percent: float = 0
    cpu_count: Number = 0
    load_1m: float = 0
    memory_total_bytes: Number = 0
    memory_used_bytes: Number = 0
    swap_total_bytes: Number = 0
    swap_used_bytes: Number = 0
    disk_total_bytes: Number = 0
    disk_used_bytes: Number = 0
    network_up_bytes_s: Number = 0
    """Bytes per second that left the machine, loopback excluded, over the last interval."""
    network_down_bytes_s: Number = 0
    network_up_total_bytes: Number = 0
    network_down_total_bytes: Number = 0
    tcp_connections_count: Number = 0
    udp_sockets_count: Number = 0
    uptime_s: Number = 0
    os: str = ""
    kernel: str = ""
    arch: str = ""
    hostname: str = ""
    addresses: tuple[str, ...] = ()
    """The addresses of the default route's interface."""
    default_address: str = ""


class SpoolState(Message, frozen=True, kw_only=True):
    """What waits to reach the ledger."""

    open_rows_count: Number = 0
    sealed_batches_count: Number = 0
    oldest_at_ms: Number = 0


class Heartbeat(Message, frozen=True, kw_only=True):
    """One beat."""

    instance: str
    """New for every agent process."""
    seq: Number
    """Counts up within the instance; an older beat is ignored."""
    sent_at_ms: Number
    """The agent's own clock, Unix milliseconds."""
    clock_offset_ms: Number = 0
    """What the agent adds to its clock to get the controller's."""
    agent_version: str = ""
    agent_uptime_s: Number = 0
    epoch: str = ""
    """Epoch under which this process seals batches."""
    wanted_revision: Revision = 0
    wanted_digest: str = ""
    applied_revision: Revision = 0
    """Revision Xray is really running; 0 before the first apply."""
    applied_digest: str = ""
    degraded_count: Number = 0
    cuts_count: Number = 0
    """Clients disconnected by the agent's own decision (allowance, expiry)."""
    manifest_serial: Number = 0
    link: str = ""
    """The broker URL it speaks through, without credentials; `via` a proxy is told after a space."""
    free_state_bytes: Number = 0
    """Free space where the agent keeps its state."""
    upgradable: bool = False
    """Installed in a way that it can replace itself (`agent.update`)."""
    credentials_expire_at_ms: Number = 0
    xray: XrayState
    host: HostFigures
    spool: SpoolState = SpoolState()
    online_count: Number = 0
    online: tuple[Ref, ...] = ()
    """Clients with an open stream, at most MAX_ONLINE_REFS of them."""
    capabilities: tuple[str, ...] = ()
    """`kill_sockets`, … : what this machine lets the agent do."""
