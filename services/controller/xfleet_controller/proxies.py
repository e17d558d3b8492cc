"""Reverse proxies: whose forwarded headers are believed, and who may come without one."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from litestar.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

Networks = Sequence[IPv4Network | IPv6Network]
FORWARDED = frozenset(
    {b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip", b"via"}
)
"""Headers by which proxies show themselves."""
_REFUSAL = b"This panel answers to its reverse proxy only.\n"


def networks_of(behind_proxy: str) -> Networks:
    """The networks of a comma-separated setting. Raises `ValueError`."""
    return tuple(ip_network(part.strip(), strict=False) for part in behind_proxy.split(",") if part.strip())


def is_among(address: str, networks: Networks) -> bool:
    """Whether an address belongs to one of the networks."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def is_loopback(address: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def came_by_proxy(scope: Any) -> bool:
    """Whether a header shows that somebody forwarded this request."""
    return any(name.lower() in FORWARDED for name, _ in scope["headers"])


def behind(app: ASGIApp, networks: Networks) -> Any:
    """The application as proxies in these networks reach it; whoever else comes over plain HTTP is sent away.

    This machine itself may always come, for health checks.
    """
    inner: Any = ProxyHeadersMiddleware(app, ",".join(map(str, networks)))  # type: ignore[arg-type]

    async def gate(scope: Scope, receive: Receive, send: Send) -> None:
        peer = scope["client"][0] if scope["type"] == "http" and scope.get("client") else ""  # type: ignore[index]
        if scope["type"] == "http" and not is_loopback(peer) and not is_among(peer, networks):
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(_REFUSAL))]
            await send({"type": "http.response.start", "status": 403, "headers": headers})  # type: ignore[typeddict-item]
            await send({"type": "http.response.body", "body": _REFUSAL, "more_body": False})
            return
        await inner(scope, receive, send)

    return gate
