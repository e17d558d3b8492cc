"""Desired state as the JSON Xray starts with."""

from collections.abc import Iterable, Mapping
from typing import Any

from xfleet_contracts.desired_state import ClientBody, EntityKey, InboundBody, OutboundBody, RuleBody
from xfleet_xraykit.counters import inbound_tag
from xfleet_xraykit.lint import BLOCK_TAG
from xfleet_xraykit.problems import as_object
from xfleet_xraykit.protocols import find_protocol, find_security
from xfleet_xraykit.state import State, typed_state

__all__ = ["render_config", "render_inbound", "render_outbound", "render_outbounds", "render_rule", "typed_state"]

API_TAG = "api"
API_SERVICES = ("HandlerService", "StatsService", "RoutingService", "LoggerService")
DIRECT_TAG = "direct"
_ONLY_FOR_LINKS = frozenset({"externalProxy"})
_USER_STATS = {"statsUserUplink": True, "statsUserDownlink": True, "statsUserOnline": True}
_SYSTEM_STATS = {
    "statsInboundUplink": True,
    "statsInboundDownlink": True,
    "statsOutboundUplink": True,
    "statsOutboundDownlink": True,
}


def render_config(
    state: State | Mapping[EntityKey, bytes],
    *,
    api_socket: str,
    access_log: str | None = None,
    error_log: str | None = None,
) -> dict[str, Any]:
    """The whole configuration; `access_log` None means none, `error_log` None means standard output."""
    typed = state if isinstance(state, State) else typed_state(state)
    settings = typed.settings
    log: dict[str, Any] = {"loglevel": settings.log_level, "access": access_log or "none"}
    if error_log is not None:
        log["error"] = error_log
    config: dict[str, Any] = {
        "log": log,
        "api": {"tag": API_TAG, "listen": api_socket, "services": list(API_SERVICES)},
        "stats": {},
        "policy": _policy(settings.policy),
        "inbounds": [render_inbound(body, typed.clients_of(ref)) for ref, body in sorted(typed.inbounds.items())],
        "outbounds": render_outbounds(typed.outbounds),
        "routing": {
            "domainStrategy": settings.domain_strategy,
            "rules": [render_rule(tag, rule) for tag, rule in typed.rules],
        },
    }
    if settings.dns:
        config["dns"] = settings.dns
    return config


def render_inbound(body: InboundBody, clients: Mapping[str, ClientBody]) -> dict[str, Any]:
    """One inbound with its clients by email; an inbound without any is valid."""
    protocol = find_protocol(body)
    users = sorted(clients.items())
    inbound: dict[str, Any] = {
        "tag": inbound_tag(body.ref),
        "port": body.port,
        "protocol": body.protocol,
        "settings": protocol.render_settings(body.settings, users) if protocol else body.settings,
    }
    if body.listen:
        inbound["listen"] = body.listen
    if body.stream_settings:
        inbound["streamSettings"] = _render_stream(body.stream_settings)
    if body.sniffing:
        inbound["sniffing"] = body.sniffing
    return inbound


def render_outbounds(outbounds: Iterable[OutboundBody]) -> list[dict[str, Any]]:
    """The outbounds in order, the default first; `direct` when there are none, and always a `block`."""
    rendered = [render_outbound(body) for body in outbounds]
    if not rendered:
        rendered.append({"tag": DIRECT_TAG, "protocol": "freedom", "settings": {}})
    if all(each["tag"] != BLOCK_TAG for each in rendered):
        rendered.append({"tag": BLOCK_TAG, "protocol": "blackhole", "settings": {}})
    return rendered


def render_outbound(body: OutboundBody) -> dict[str, Any]:
    """One outbound."""
    outbound: dict[str, Any] = {"tag": body.tag, "protocol": body.protocol, "settings": body.settings}
    if body.stream_settings:
        outbound["streamSettings"] = body.stream_settings
    if body.mux:
        outbound["mux"] = body.mux
    if body.send_through:
        outbound["sendThrough"] = body.send_through
    return outbound


def render_rule(tag: str, body: RuleBody) -> dict[str, Any]:
    """One routing rule under its tag."""
    return {"type": "field"} | body.rule | {"ruleTag": tag}


def _render_stream(stream: Mapping[str, Any]) -> dict[str, Any]:
    rendered = {key: value for key, value in stream.items() if key not in _ONLY_FOR_LINKS}
    security = find_security(stream)
    for key in security.settings_keys if security else ():
        if isinstance(rendered.get(key), dict) and security is not None:
            rendered[key] = security.render(rendered[key])
    return rendered


def _policy(wanted: Mapping[str, Any]) -> dict[str, Any]:
    levels = as_object(wanted.get("levels"))
    level_0 = as_object(levels.get("0")) | _USER_STATS
    system = as_object(wanted.get("system")) | _SYSTEM_STATS
    return {**wanted, "levels": {**levels, "0": level_0}, "system": system}
