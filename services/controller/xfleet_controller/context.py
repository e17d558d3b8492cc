"""What every service function is handed: the controller's parts, made once by `app`."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from xfleet_controller.auth.passwords import Passwords
from xfleet_controller.config import ControllerSettings
from xfleet_controller.db import Database
from xfleet_controller.panel.pulse import Pulse
from xfleet_controller.servers.index import StateIndexes
from xfleet_controller.servers.presence import Presence
from xfleet_controller.tasks.bell import TaskBell
from xfleet_controller.vault import Vault
from xfleet_runtime.clock import Clock

if TYPE_CHECKING:
    from xfleet_controller.bus import Bus
    from xfleet_controller.fleet.service import Fleet


@dataclass(kw_only=True)
class Context:
    """The parts of a running controller."""

    settings: ControllerSettings
    clock: Clock
    database: Database
    vault: Vault
    passwords: Passwords
    presence: Presence
    indexes: StateIndexes = field(default_factory=StateIndexes)
    bell: TaskBell = field(default_factory=TaskBell)
    pulse: Pulse = field(default_factory=Pulse)
    """Rung by whatever live pages show."""
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    """This controller's own figures."""
    fleet: "Fleet | None" = None
    """Keys and identities; None where a test needs no fleet."""
    bus: "Bus | None" = None
    """The links to the broker; None where a test has no broker."""
