"""What an operator may set; `XFLEET_<NAME>` in the environment or `<name>` in the file."""

from pathlib import Path

import msgspec

from xfleet_contracts.heartbeat import HEARTBEAT_INTERVAL_S
from xfleet_contracts.traffic import METER_INTERVAL_S


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one agent."""

    state_dir: Path = Path("/var/lib/xfleet-agent")
    """Identity, wanted state, spool and Xray's sockets; mode 0700."""
    install_dir: Path | None = None
    """Where the releases lie; set by the launcher. Empty: this agent cannot be upgraded over the bus."""
    xray_binary: str = ""
    """Path of an official Xray binary; empty: the one in the `xray-core` wheel."""
    broker_proxy: str = ""
    """Proxy on the way to the broker and the panel: `socks5://user:password@host:port` or `http://…`."""
    renew_every_s: float = 30 * 86_400
    """How often certificate and bus token are renewed; at the latest with a third of their life left."""
    meter_interval_s: float = METER_INTERVAL_S
    heartbeat_interval_s: float = HEARTBEAT_INTERVAL_S
    drift_interval_s: float = 60
    """How often Xray's users are compared with what should be there."""
    probation_s: float = 60
    """Three crashes of Xray within this time after an apply fall back to the last good state."""
    drain_s: float = 60
    """How long a replaced Xray may finish its open connections."""
    disk_low_bytes: int = 256 * 1024 * 1024
    """With less free space in the state directory the panel is told; 0 never tells."""
    trial_s: float = 3
    """How long a newly installed Xray must stay up beside the old one before it takes over."""
    log_paths: str = ""
    """Further logs that the panel may read: absolute paths, comma-separated."""
    log_level: str = "info"
