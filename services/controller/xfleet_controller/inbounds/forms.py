"""The inbound form: what a few fields mean in Xray's own JSON, and back. Pure."""

import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from xfleet_contracts.codec import sha256_hex
from xfleet_contracts.desired_state import InboundBody
from xfleet_controller.errors import FieldError, Invalid
from xfleet_controller.inbounds.service import InboundEdit, InboundNew
from xfleet_controller.panel.forms import Fields, whole_number
from xfleet_controller.panel.views import FormView, OptionView

REALITY, WEBSOCKET, CUSTOM = "reality", "ws", "custom"
KINDS = (
    OptionView(value=REALITY, label="VLESS + Reality", hint="Looks like a real TLS site. The best default."),
    OptionView(value=WEBSOCKET, label="VLESS + WebSocket", hint="Without TLS, for behind a CDN or proxy."),
    OptionView(value=CUSTOM, label="Xray JSON", hint="You write it all yourself."),
)
REALITY_TARGETS = (
    "www.nvidia.com",
    "www.amd.com",
    "www.intel.com",
    "www.sony.com",
    "www.samsung.com",
    "www.oracle.com",
)
"""Sites with TLS 1.3 and HTTP/2 that answer from everywhere; one is proposed by chance."""
FIRST_PORTS = (443, 8443)
RANDOM_PORTS = range(20_000, 50_000)
SNIFFING: dict[str, Any] = {"enabled": True, "destOverride": ["http", "tls", "quic"]}
MAX_PORT_DIGITS = 5
FIELD_NAMES = {
    "stream_settings.realitySettings.target": "reality_target",
    "stream_settings.realitySettings.serverNames": "reality_server_names",
    "stream_settings.wsSettings.path": "ws_path",
    "stream_settings.wsSettings.host": "ws_host",
    "stream_settings": "stream_settings",
    "settings": "settings",
    "sniffing": "sniffing",
}
"""Which field of the form stands for a path of a refusal."""
JSON_FIELDS = ("settings", "stream_settings", "sniffing")
JSON_WAS = "json_was"
"""The hidden field with a digest of the JSON as it was shown."""


def suggest_port(taken: Collection[int], *, low_ports: bool) -> int:
    """A port no other inbound of the server has; 443 first where the server may open it."""
    if low_ports:
        for port in FIRST_PORTS:
            if port not in taken:
                return port
    while True:
        port = secrets.choice(RANDOM_PORTS)
        if port not in taken:
            return port


def new_values(server_id: int, port: int) -> dict[str, str]:
    """What the form proposes for a new inbound."""
    site = secrets.choice(REALITY_TARGETS)
    return {
        "server_id": str(server_id),
        "preset": REALITY,
        "port": str(port),
        "protocol": "vless",
        "reality_target": f"{site}:443",
        "reality_server_names": site,
        "ws_path": "/",
        "enabled": "on",
    }


def stored_values(body: InboundBody, *, server_id: int, remark: str, enabled: bool, version: int) -> dict[str, str]:
    """What the form shows of an inbound that exists."""
    stream = body.stream_settings
    written = json_values(body)
    reality, websocket = _object(stream.get("realitySettings")), _object(stream.get("wsSettings"))
    names = reality.get("serverNames")
    return {
        "server_id": str(server_id),
        "remark": remark,
        "preset": kind_of(body),
        "port": str(body.port),
        "listen": body.listen,
        "protocol": body.protocol,
        "reality_target": str(reality.get("target") or reality.get("dest") or ""),
        "reality_server_names": ", ".join(str(name) for name in names) if isinstance(names, list) else "",
        "ws_path": str(websocket.get("path") or "/"),
        "ws_host": str(websocket.get("host") or ""),
        "enabled": "on" if enabled else "",
        "version": str(version),
    } | written


def json_values(body: InboundBody) -> dict[str, str]:
    """Xray's own JSON as the form shows it, and by what it is told later whether somebody touched it."""
    written = {name: pretty(getattr(body, name)) for name in JSON_FIELDS}
    return written | {JSON_WAS: _digest(written)}


def is_json_untouched(fields: Fields) -> bool:
    """Whether the JSON is as the form showed it."""
    return fields.text(JSON_WAS) == _digest({name: fields.text(name) for name in JSON_FIELDS})


def kind_of(body: InboundBody) -> str:
    """Which kind of the form an inbound is."""
    network, security = body.stream_settings.get("network", "raw"), body.stream_settings.get("security", "none")
    if body.protocol == "vless" and network in {"raw", "tcp"} and security == "reality":
        return REALITY
    if body.protocol == "vless" and network in {"ws", "websocket"} and security in {"", "none"}:
        return WEBSOCKET
    return CUSTOM


def new_inbound(fields: Fields) -> InboundNew:
    """The inbound a filled-in form asks for. Raises `Invalid` for what is no number and no JSON."""
    errors: list[FieldError] = []
    port = _port(fields, errors)
    written = {name: _json_field(fields, name, errors) for name in JSON_FIELDS}
    if errors:
        raise Invalid(errors)
    kind = fields.text("preset")
    stream = {} if kind == CUSTOM else _stream_of(kind, fields)
    sniffing = {} if kind == CUSTOM else SNIFFING
    return InboundNew(
        server_id=whole_number(fields.text("server_id")) or 0,
        port=port,
        protocol=(fields.text("protocol") or "vless") if kind == CUSTOM else "vless",
        remark=fields.text("remark"),
        listen=fields.text("listen"),
        settings=written["settings"],
        stream_settings=overlaid(stream, written["stream_settings"]),
        sniffing=written["sniffing"] or sniffing,
        enabled=fields.is_on("enabled"),
    )


def edited_inbound(fields: Fields, before: InboundBody) -> InboundEdit:
    """The change a filled-in form asks for: JSON that was touched wins, else the simple fields go into what was there.

    Raises `Invalid` for what is no number and no JSON.
    """
    errors: list[FieldError] = []
    port = _port(fields, errors)
    written = {name: _json_field(fields, name, errors) for name in JSON_FIELDS}
    if errors:
        raise Invalid(errors)
    kind = fields.text("preset")
    untouched = is_json_untouched(fields)
    if untouched:
        written = {name: getattr(before, name) for name in JSON_FIELDS}
    stream = written["stream_settings"]
    if (untouched or stream == before.stream_settings) and kind != CUSTOM:
        base = before.stream_settings if kind == kind_of(before) else _without_kinds(before.stream_settings)
        stream = overlaid(base, _stream_of(kind, fields))
    return InboundEdit(
        remark=fields.text("remark"),
        listen=fields.text("listen"),
        port=port,
        settings=written["settings"],
        stream_settings=stream,
        sniffing=written["sniffing"],
        enabled=fields.is_on("enabled"),
        version=msgspec.UNSET if (version := whole_number(fields.text("version"))) is None else version,
    )


def overlaid(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Objects merged key by key, deeply; lists and plain values of `over` replace those of `under`."""
    merged = dict(under)
    for key, value in over.items():
        held = merged.get(key)
        merged[key] = overlaid(held, value) if isinstance(held, dict) and isinstance(value, dict) else value
    return merged


def pretty(value: Mapping[str, Any]) -> str:
    """JSON for people; empty for an empty object."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() if value else ""


def form_options(servers: Mapping[int, str], protocols: Sequence[str]) -> dict[str, tuple[OptionView, ...]]:
    """The choices of the form."""
    return {
        "preset": KINDS,
        "server_id": tuple(OptionView(value=str(key), label=name) for key, name in servers.items()),
        "protocol": tuple(OptionView(value=name, label=name) for name in protocols),
    }


def opens_advanced(form: FormView) -> bool:
    """Whether something is wrong with the JSON, so that it must be seen."""
    return form.value("preset") == CUSTOM or any(form.error(name) for name in JSON_FIELDS)


def _stream_of(kind: str, fields: Fields) -> dict[str, Any]:
    if kind == WEBSOCKET:
        host = {"host": fields.text("ws_host")} if fields.text("ws_host") else {}
        settings = {"path": fields.text("ws_path") or "/", **host}
        return {"network": "ws", "security": "none", "wsSettings": settings}
    target = fields.text("reality_target")
    if target and ":" not in target and not target.isdecimal():
        target = f"{target}:443"
    settings: dict[str, Any] = {"target": target, "serverNames": fields.words("reality_server_names")}
    return {"network": "raw", "security": "reality", "realitySettings": settings}


def _without_kinds(stream: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in stream.items() if not key.endswith("Settings")}


def _port(fields: Fields, errors: list[FieldError]) -> int:
    text = fields.text("port")
    if not text.isdecimal() or len(text) > MAX_PORT_DIGITS:
        errors.append(FieldError("port", "The port is a number between 1 and 65535.", "bad_port"))
        return 0
    return int(text)


def _json_field(fields: Fields, name: str, errors: list[FieldError]) -> dict[str, Any]:
    text = fields.text(name)
    if not text:
        return {}
    try:
        value = msgspec.json.decode(text)
    except RecursionError:
        errors.append(FieldError(name, "This is nested too deeply.", "too_deep"))
        return {}
    except msgspec.DecodeError as error:
        errors.append(FieldError(name, f"This is not JSON: {error}.", "not_json"))
        return {}
    if not isinstance(value, dict):
        errors.append(FieldError(name, "This must be a JSON object, in braces.", "not_an_object"))
        return {}
    return value


def _digest(written: Mapping[str, str]) -> str:
    return sha256_hex("\0".join(written[name] for name in JSON_FIELDS).encode())


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
