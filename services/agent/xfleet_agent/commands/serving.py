"""The refusals that every verb about Xray shares."""

from xfleet_agent.parts import Parts
from xfleet_agent.processes import RunningXray
from xfleet_contracts.errors import Refusal


class XrayNotRunning(Refusal):
    """Xray does not run now; the agent is starting it again."""

    code = "xray_down"
    status = 503
    message = "Xray does not run on this server now."


class XrayStopped(Refusal):
    """An operator stopped Xray."""

    code = "xray_stopped"
    status = 409
    message = "Xray was stopped on this server by an operator; start it first."


def serving(parts: Parts) -> RunningXray:
    """The Xray that serves. Raises `XrayStopped` or `XrayNotRunning`."""
    running = parts.driver.current
    if running is not None:
        return running
    if not parts.driver.wanted_running:
        raise XrayStopped
    raise XrayNotRunning(reason=parts.driver.last_error)
