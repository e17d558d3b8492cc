"""`health`: whether everything this agent is for works now."""

import msgspec

from xfleet_agent.desk import Verb
from xfleet_agent.parts import Parts
from xfleet_contracts.commands import AgentHealth
from xfleet_xraykit.errors import XrayDown, XrayHung

NAME = "health"
OK = "ok"


def verb(parts: Parts) -> Verb:
    """How it is carried out."""

    async def handle(_body: msgspec.Raw) -> AgentHealth:
        checks = {
            "xray": await _xray(parts),
            "spool": parts.meter.last_error or OK,
            "state": _state(parts),
            "ledger": OK if parts.courier.settled else "The ledger has not answered since the link came up.",
            "clock": OK if parts.clock.trusted else "The clock jumped by more than a day; no client is cut by time.",
        }
        return AgentHealth(ok=all(word == OK for word in checks.values()), checks=checks)

    return Verb(handler=handle)


async def _xray(parts: Parts) -> str:
    running = parts.driver.current
    if running is None:
        return parts.driver.last_error or f"Xray is {parts.driver.status}."
    try:
        await running.api.sys_stats()
    except (XrayDown, XrayHung) as error:
        return str(error)
    return OK


def _state(parts: Parts) -> str:
    if parts.applier.degraded:
        return f"{len(parts.applier.degraded)} entities were refused."
    if parts.store.wanted_point != parts.store.applied_point:
        return "The wanted state is not applied yet."
    return OK
