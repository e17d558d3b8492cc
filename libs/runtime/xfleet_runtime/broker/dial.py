"""The way out to a broker: directly, or through a SOCKS5 or HTTP proxy whose password is never shown."""

import asyncio
import base64
import ipaddress
import socket
from urllib.parse import unquote, urlsplit

import msgspec

from xfleet_contracts.message import Secret
from xfleet_runtime.errors import Unusable

MAX_ANSWER_BYTES = 16 * 1024
_SCHEMES = {"socks5": 1080, "socks5h": 1080, "http": 3128}
_SOCKS_VERSION = 5
_SOCKS_NO_LOGIN, _SOCKS_PASSWORD, _SOCKS_NONE_FITS = 0, 2, 255
_SOCKS_IPV4, _SOCKS_NAME, _SOCKS_IPV6 = 1, 3, 4
_SOCKS_REASONS = {
    1: "it failed",
    2: "its rules forbid it",
    3: "the network is unreachable",
    4: "the host is unreachable",
    5: "the connection was refused",
    6: "it took too long",
    7: "it does not know the command",
    8: "it does not know this kind of address",
}


class ProxyRefusedError(ConnectionError):
    """The proxy was reached and does not bring us to the broker."""


class Proxy(msgspec.Struct, frozen=True, kw_only=True):
    """Through whom to dial."""

    scheme: str
    host: str
    port: int
    user: Secret = ""
    password: Secret = ""

    @property
    def shown(self) -> str:
        """Its address without user and password: what logs, beats and errors say."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def __repr__(self) -> str:
        return f"Proxy({self.shown})"


def parse_proxy(text: str) -> Proxy | None:
    """The proxy a setting names; None for an empty one. Raises `Unusable`, which never repeats the password."""
    if not text.strip():
        return None
    advice = "Give broker_proxy as socks5://user:password@host:port or http://user:password@host:port."
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        raise Unusable(f"The broker's proxy has an unusable address. {advice}") from None
    if parts.scheme not in _SCHEMES or not parts.hostname or parts.path.strip("/") or parts.query or port == 0:
        raise Unusable(f"The broker's proxy has an unusable address. {advice}")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if max(len(user.encode()), len(password.encode())) > 255 or ":" in user:  # noqa: PLR2004  the length is one byte
        raise Unusable(f"The broker's proxy has an unusable user or password. {advice}")
    scheme = parts.scheme.removesuffix("h") if parts.scheme == "socks5h" else parts.scheme
    return Proxy(scheme=scheme, host=parts.hostname, port=port or _SCHEMES[parts.scheme], user=user, password=password)


async def dial(
    host: str, port: int, proxy: Proxy | None, *, limit: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A byte stream to that host and port. Raises `OSError`, `ProxyRefusedError` when the proxy says no."""
    if proxy is None:
        return await asyncio.open_connection(host, port, limit=limit)
    try:
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port, limit=max(limit, MAX_ANSWER_BYTES))
    except OSError as error:
        raise ProxyRefusedError(f"the proxy {proxy.shown} cannot be reached: {error.strerror or error}") from error
    try:
        if proxy.scheme == "http":
            await _connect_http(reader, writer, host, port, proxy)
        else:
            await _connect_socks(reader, writer, host, port, proxy)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        writer.transport.abort()
        raise ProxyRefusedError(f"the proxy {proxy.shown} does not speak as it should") from error
    except BaseException:
        writer.transport.abort()
        raise
    return reader, writer


async def _connect_http(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int, proxy: Proxy
) -> None:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.user or proxy.password:
        login = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {login}")
    writer.write("\r\n".join([*lines, "", ""]).encode())
    await writer.drain()
    answer = await reader.readuntil(b"\r\n\r\n")
    status = answer.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    if len(status) < 2 or not status[0].startswith("HTTP/1."):  # noqa: PLR2004
        raise ProxyRefusedError(f"the proxy {proxy.shown} does not speak HTTP")
    if status[1] != "200":
        raise ProxyRefusedError(f"the proxy {proxy.shown} refuses: {' '.join(status[1:])[:100]!r}")


async def _connect_socks(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int, proxy: Proxy
) -> None:
    login = bool(proxy.user or proxy.password)
    methods = bytes([_SOCKS_NO_LOGIN, _SOCKS_PASSWORD] if login else [_SOCKS_NO_LOGIN])
    writer.write(bytes([_SOCKS_VERSION, len(methods)]) + methods)
    version, method = await reader.readexactly(2)
    if version != _SOCKS_VERSION:
        raise ProxyRefusedError(f"the proxy {proxy.shown} does not speak SOCKS5")
    if method == _SOCKS_PASSWORD and login:
        user, password = proxy.user.encode(), proxy.password.encode()
        writer.write(bytes([1, len(user)]) + user + bytes([len(password)]) + password)
        if (await reader.readexactly(2))[1] != 0:
            raise ProxyRefusedError(f"the proxy {proxy.shown} refuses this user and password")
    elif method != _SOCKS_NO_LOGIN:
        wants = "a way to sign in that it was not given" if method != _SOCKS_NONE_FITS else "a user and a password"
        raise ProxyRefusedError(f"the proxy {proxy.shown} wants {wants}")
    writer.write(bytes([_SOCKS_VERSION, 1, 0]) + _socks_address(host, proxy) + port.to_bytes(2, "big"))
    _, code, _, kind = await reader.readexactly(4)
    if code != 0:
        raise ProxyRefusedError(f"the proxy {proxy.shown} says: {_SOCKS_REASONS.get(code, f'error {code}')}")
    length = {_SOCKS_IPV4: 4, _SOCKS_IPV6: 16}.get(kind) or (await reader.readexactly(1))[0]
    await reader.readexactly(length + 2)


def _socks_address(host: str, proxy: Proxy) -> bytes:
    """Names go to the proxy as they are: it may know what we do not."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            name = host.encode("idna")
        except UnicodeError:
            raise ProxyRefusedError(f"the name {host!r} cannot be told to the proxy {proxy.shown}") from None
        return bytes([_SOCKS_NAME, len(name)]) + name
    family = _SOCKS_IPV4 if address.version == 4 else _SOCKS_IPV6  # noqa: PLR2004
    return bytes([family]) + socket.inet_pton(
        socket.AF_INET if family == _SOCKS_IPV4 else socket.AF_INET6, str(address)
    )
