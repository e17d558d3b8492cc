"""What every service function is handed: the controller's parts, made once by `app`."""

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from xfleet_controller.auth.passwords import Passwords
from xfleet_controller.auth.throttle import Tries
from xfleet_controller.backups.state import BackupState
from xfleet_controller.config import ControllerSettings
from xfleet_controller.db import Database
from xfleet_controller.install.gate import Gate
from xfleet_controller.install.library import Library
from xfleet_controller.install.side_door import SideDoor
from xfleet_controller.orders.limits import OrderLimits
from xfleet_controller.panel.pulse import Pulse
from xfleet_controller.servers.index import StateIndexes
from xfleet_controller.servers.presence import Bucket, Presence
from xfleet_controller.tasks.bell import TaskBell
from xfleet_controller.vault import Vault
from xfleet_runtime.clock import Clock

if TYPE_CHECKING:
    from xfleet_controller.bus import Bus, Commander
    from xfleet_controller.fleet.service import Fleet
    from xfleet_controller.logs.hub import LogHub
    from xfleet_controller.orders.blobs import Transfers


class Context:
    """The parts of a running controller."""

    def __init__(
        self,
        *,
        settings: ControllerSettings,
        clock: Clock,
        database: Database,
        vault: Vault,
        passwords: Passwords,
        presence: Presence,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.database = database
        self.vault = vault
        self.passwords = passwords
        self.presence = presence
        self.tries = Tries()
        self.indexes = StateIndexes()
        self.bell = TaskBell()
        self.pulse = Pulse()
        """Rung by whatever live pages show."""
        self.library = Library(settings.data_dir / "install")
        """What machines that join fetch."""
        self.install_gate = Gate()
        self.dials: dict[str, Bucket] = {}
        """How many addresses each admin may still have dialled, by name."""
        self.backups = BackupState()
        self.side_door = SideDoor()
        self.registry = CollectorRegistry()
        """This controller's own figures."""
        self.certificate_ends: dict[str, datetime] = {}
        """When the last identity of each server ends, by slug, as last looked up."""
        self.fleet: Fleet | None = None
        """Keys and identities; None where a test needs no fleet."""
        self.bus: Bus | None = None
        """The links to the broker; None where a test has no broker."""
        self.commander: Commander | None = None
        """Signs and sends commands to agents; None where a test has no broker."""
        self.order_limits = OrderLimits(clock)
        self.order_wake = asyncio.Event()
        """Set when there is an order to carry out."""
        self.transfers: Transfers | None = None
        """Files on their way from and to agents; None where a test has no broker."""
        self.log_hub: LogHub | None = None
        """Live logs and who looks at them; None where a test has no broker."""
