"""The verbs this agent knows, one file each: a `NAME` and a `verb(parts)`, or `verbs(parts)` for a family."""

from typing import Protocol, cast

from xfleet_agent.commands import (
    agent_update,
    backup,
    certs,
    checks_run,
    clients_online,
    geofiles_update,
    health,
    info,
    logs_read,
    state_apply,
    state_read,
    system_stats,
    traffic_read,
    unreplied,
    xray_config,
    xray_install,
    xray_restart,
    xray_start,
    xray_stop,
    xray_version,
)
from xfleet_agent.desk import Verb
from xfleet_agent.parts import Parts


class Command(Protocol):
    """What each of these modules is."""

    NAME: str

    def verb(self, parts: Parts) -> Verb:
        """How it is carried out."""
        ...


_MODULES = (
    agent_update,
    checks_run,
    clients_online,
    geofiles_update,
    health,
    info,
    logs_read,
    state_apply,
    state_read,
    system_stats,
    traffic_read,
    xray_config,
    xray_install,
    xray_restart,
    xray_start,
    xray_stop,
    xray_version,
)


def add_verbs(parts: Parts) -> None:
    """Makes them all known to the desk."""
    for module in _MODULES:
        command = cast("Command", module)
        parts.desk.add(command.NAME, command.verb(parts))
    for family in (backup, certs, unreplied):
        for name, each in family.verbs(parts).items():
            parts.desk.add(name, each)
