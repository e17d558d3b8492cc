"""The agent's parts, as commands and loops are handed them; only `app` makes one."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xfleet_agent.apply import Applier
from xfleet_agent.calls import Calls
from xfleet_agent.courier import Courier
from xfleet_agent.database import Worker
from xfleet_agent.desk import Desk
from xfleet_agent.disk import DiskWatch
from xfleet_agent.events import Events
from xfleet_agent.fleet_clock import FleetClock
from xfleet_agent.governor import Governor
from xfleet_agent.host import Host
from xfleet_agent.identity import Identity
from xfleet_agent.installer import Installer
from xfleet_agent.journal import Journal
from xfleet_agent.log_leases import LogLeases
from xfleet_agent.logs import LogFiles
from xfleet_agent.meter import Meter
from xfleet_agent.releases import Releases
from xfleet_agent.settings import AgentSettings
from xfleet_agent.spool import Spool
from xfleet_agent.state import StateStore
from xfleet_agent.xray import XrayDriver
from xfleet_runtime.broker import BrokerLink
from xfleet_runtime.clock import Clock

if TYPE_CHECKING:
    from xfleet_agent.certificates import Certificates


@dataclass
class Parts:
    """One running agent."""

    settings: AgentSettings
    identity: Identity
    instance: str
    system_clock: Clock
    started_s: float
    clock: FleetClock
    worker: Worker
    store: StateStore
    journal: Journal
    spool: Spool
    events: Events
    disk: DiskWatch
    host: Host
    meter: Meter
    driver: XrayDriver
    applier: Applier
    governor: Governor
    link: BrokerLink
    calls: Calls
    courier: Courier
    desk: Desk
    releases: Releases
    installer: Installer
    logs: LogFiles
    leases: LogLeases
    beat: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a heartbeat should go out at once."""

    @property
    def sid(self) -> str:
        """This server's name on the bus."""
        return self.identity.sid

    def certificates(self) -> "Certificates":
        """The domain certificates on this machine; loads what few agents ever need."""
        from xfleet_agent.certificates import Certificates  # noqa: PLC0415  large

        return Certificates(self.settings.state_dir / "certs")
