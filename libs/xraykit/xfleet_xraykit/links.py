"""Share links, written and read, and the client's configuration for one.

Parameters are sorted and percent-encoded as 3x-ui writes them, so apps and people see the links they know.
"""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from xfleet_contracts.desired_state import ClientBody, InboundBody
from xfleet_contracts.errors import Refusal
from xfleet_xraykit.protocols import (
    find_protocol,
    find_security,
    find_transport,
    inbound_protocols,
    securities,
    settings_of,
    transports,
)

_MAX_PORT = 65535


class LinkUnreadable(Refusal):
    """A text that is not a share link we understand."""

    code = "link_unreadable"
    status = 422
    message = "This is not a share link that can be read."


class LinkImpossible(Refusal):
    """An inbound for which no link can be made."""

    code = "link_impossible"
    status = 422
    message = "No share link can be made for this inbound."


@dataclass(frozen=True, slots=True)
class ParsedLink:
    """A share link's parts."""

    protocol: str
    user: str = field(repr=False)
    host: str
    """Without brackets."""
    port: int
    params: dict[str, str] = field(repr=False)
    remark: str = ""


def share_link(inbound: InboundBody, client: ClientBody, *, address: str, remark: str, port: int | None = None) -> str:
    """The link that lets an app connect to this inbound as this client. Raises `LinkImpossible`.

    `port` replaces the inbound's own where another one is advertised.
    """
    stream = inbound.stream_settings
    protocol, transport, security = find_protocol(inbound), find_transport(stream), find_security(stream)
    if protocol is None or transport is None or security is None:
        raise LinkImpossible(protocol=inbound.protocol)
    user, params = protocol.link(inbound, client)
    params |= {"type": transport.link_type, "security": security.name} | transport.link_params(stream)
    try:
        params |= security.link_params(settings_of(stream, security.settings_keys)[1], client)
    except ValueError as error:
        raise LinkImpossible(str(error)) from error
    parts = ParsedLink(inbound.protocol, user, address.strip("[]"), port or inbound.port, params, remark)
    return format_link(parts)


def format_link(link: ParsedLink) -> str:
    """The link as text."""
    host = f"[{link.host}]" if ":" in link.host else link.host
    query = urlencode(sorted(link.params.items()))
    return f"{link.protocol}://{quote(link.user, safe='')}@{host}:{link.port}?{query}#{quote(link.remark, safe='')}"


def parse_link(text: str) -> ParsedLink:
    """The link's parts. Raises `LinkUnreadable`."""
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname or "", parts.port or 0
    except ValueError as error:
        raise LinkUnreadable(f"The link cannot be read: {error}.") from error
    if parts.scheme not in inbound_protocols():
        raise LinkUnreadable(f"Links of the kind {parts.scheme or 'none'!r} are not understood.")
    user = unquote(parts.netloc.rpartition("@")[0])
    if not user or not host or not 0 < port <= _MAX_PORT:
        raise LinkUnreadable("A link is protocol://user@host:port?parameters#name.")
    params = dict(parse_qsl(parts.query, keep_blank_values=True))
    return ParsedLink(parts.scheme, user, host, port, params, unquote(parts.fragment))


def client_outbound(link: ParsedLink, *, tag: str = "proxy") -> dict[str, Any]:
    """The outbound with which an Xray connects by this link. Raises `LinkUnreadable`."""
    by_type = {each.link_type: each for each in transports().values()}
    transport = by_type.get(link.params.get("type", "tcp"))
    security = securities().get(link.params.get("security") or "none")
    if transport is None or security is None:
        raise LinkUnreadable("The link's transport or security is not understood.")
    stream: dict[str, Any] = {"network": transport.names[0], "security": security.name}
    settings = transport.client_settings(link.params)
    if settings:
        stream[transport.settings_keys[0]] = settings
    if security.settings_keys:
        stream[security.settings_keys[0]] = security.client_settings(link.params)
    protocol = inbound_protocols()[link.protocol]
    outbound = protocol.client_outbound(link.user, link.host, link.port, link.params)
    return outbound | {"tag": tag, "streamSettings": stream}


def client_config(link: ParsedLink, *, socks_port: int, send_through: str = "", mux: bool = False) -> dict[str, Any]:
    """A whole client: SOCKS5 on 127.0.0.1 to the link's server."""
    outbound = client_outbound(link)
    if send_through:
        outbound["sendThrough"] = send_through
    if mux:
        outbound["mux"] = {"enabled": True, "concurrency": 8}
    socks = {"tag": "socks", "listen": "127.0.0.1", "port": socks_port, "protocol": "socks", "settings": {"udp": False}}
    return {"log": {"loglevel": "warning", "access": "none"}, "inbounds": [socks], "outbounds": [outbound]}
