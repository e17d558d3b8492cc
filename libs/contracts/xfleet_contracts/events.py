"""Events: what happened, for whoever wants to know.

Subject  fleet.up.<sid>.event (agent -> stream AGENT_EVENTS) and fleet.evt.<type> (controller -> stream EVENTS)
Rhythm   when it happens
Loss     agents' events are informative and may be lost; the controller's leave through its outbox, at least once
"""

from typing import Any

from xfleet_contracts.message import Message


class AgentEvent(Message, frozen=True, kw_only=True):
    """Something an agent noticed."""

    type: str
    """Past participle: `xray_crashed`, `xray_started`, `drift_patched`, `client_cut`, `disk_low`, `disk_ok`, …"""
    id: str
    at_ms: int
    details: dict[str, Any] = {}


class FleetEvent(Message, frozen=True, kw_only=True):
    """Something that happened in the fleet; `id` is what consumers deduplicate by."""

    id: str
    type: str
    """`server_online`, `server_offline`, `client_depleted`, `client_expired`, `agent_cloned`, `batch_forked`, …"""
    at_ms: int
    server: str = ""
    subject: str = ""
    """Name of what it is about."""
    details: dict[str, Any] = {}
