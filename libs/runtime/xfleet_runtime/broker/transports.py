"""nats-py's two kinds of connection, made by our own way out: TCP that turns into TLS, and WebSocket inside TLS.

nats-py's WebSockets would need aiohttp, which costs an agent 10 MB it has no other use for, and know no SOCKS. TLS ends
at the broker itself in both, with our certificate: whatever stands between (a proxy, a forwarder of port 443) only
passes bytes on.
"""

import asyncio
import base64
import hashlib
import secrets
import ssl
from urllib.parse import ParseResult

from nats.aio.transport import TcpTransport, Transport

from xfleet_runtime.broker.dial import Proxy, dial

WSS = "wss"
WSS_PORT, NATS_PORT = 443, 4222
MAX_FRAME_BYTES = 16 * 1024 * 1024
MAX_HEADERS_BYTES = 16 * 1024
_ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_FINAL, _MASKED = 0x80, 0x80
_CONTINUED, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x2, 0x8, 0x9, 0xA
_SHORT_BYTES, _MEDIUM, _LONG = 125, 126, 127


class UpgradeRefusedError(ConnectionError):
    """What answers there is no broker's WebSocket listener."""


class DialledTcp(TcpTransport):
    """TCP through a proxy or directly; the broker speaks first, then both turn to TLS."""

    def __init__(self, proxy: Proxy | None) -> None:
        super().__init__()
        self._proxy = proxy

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """Opens the stream."""
        async with asyncio.timeout(connect_timeout):
            reader, writer = await dial(uri.hostname or "", uri.port or NATS_PORT, self._proxy, limit=buffer_size)
        self._bare_io_reader = self._io_reader = reader
        self._bare_io_writer = self._io_writer = writer

    def __bool__(self) -> bool:
        """There from the beginning, so that nats-py makes none of its own."""
        return True


class WebSocket(Transport):
    """WebSocket (RFC 6455) inside TLS, as a stream of bytes; what is written between two drains is one frame."""

    def __init__(self, tls_name: str, proxy: Proxy | None) -> None:
        self._tls_name = tls_name
        self._proxy = proxy
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._plain: asyncio.StreamWriter | None = None
        self._unsent: list[bytes] = []
        self._unread = b""
        self._ended = False

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:  # noqa: ARG002
        """Never without TLS."""
        raise UpgradeRefusedError(f"{uri.scheme}:// is not protected; use wss://")

    async def connect_tls(
        self, uri: str | ParseResult, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: int
    ) -> None:
        """Dials, shakes hands and upgrades; asked again after the broker's greeting there is nothing left to do."""
        if self._writer is not None or isinstance(uri, str):
            return
        host, port = uri.hostname or "", uri.port or WSS_PORT
        async with asyncio.timeout(connect_timeout):
            _, self._plain = await dial(host, port, self._proxy, limit=buffer_size)
            loop = asyncio.get_running_loop()
            reader = asyncio.StreamReader(limit=max(buffer_size, MAX_HEADERS_BYTES))
            protocol = asyncio.StreamReaderProtocol(reader)
            transport = await loop.start_tls(
                self._plain.transport, protocol, ssl_context, server_hostname=self._tls_name
            )
            if transport is None:
                raise UpgradeRefusedError("the connection broke while it was being protected")
            self._reader, self._writer = reader, asyncio.StreamWriter(transport, protocol, reader, loop)
            path = f"{uri.path or '/'}{f'?{uri.query}' if uri.query else ''}"
            await self._upgrade(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", path)

    async def _upgrade(self, host: str, path: str) -> None:
        reader, writer = self._streams()
        key = base64.b64encode(secrets.token_bytes(16))
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key.decode()}\r\n\r\n".encode()
        )
        await writer.drain()
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise UpgradeRefusedError("no WebSocket listens there") from error
        status, *lines = head.split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        expected = base64.b64encode(hashlib.sha1(key + _ACCEPT).digest()).decode()  # noqa: S324  as RFC 6455 wants it
        if " 101" not in status or headers.get("sec-websocket-accept") != expected:
            raise UpgradeRefusedError(f"no WebSocket listens there: {status[:100]!r}")

    def write(self, payload: bytes) -> None:
        """Keeps bytes for the next frame."""
        self._unsent.append(payload)

    def writelines(self, payload: list[bytes]) -> None:
        """Keeps bytes for the next frame."""
        self._unsent.extend(payload)

    async def drain(self) -> None:
        """Sends what was kept as one frame."""
        if not self._unsent:
            return
        payload, self._unsent = b"".join(self._unsent), []
        _, writer = self._streams()
        writer.write(frame_of(_BINARY, payload))
        await writer.drain()

    async def read(self, buffer_size: int) -> bytes:  # noqa: ARG002  a frame comes as it is
        """Bytes that came, empty at the end. Raises `ConnectionError` for what is no WebSocket."""
        while not self._unread and not self._ended:
            self._unread = await self._next()
        found, self._unread = self._unread, b""
        return found

    async def readline(self) -> bytes:
        """A line of the broker's greeting."""
        while b"\n" not in self._unread and not self._ended:
            self._unread += await self._next()
        line, end, self._unread = self._unread.partition(b"\n")
        return line + end

    async def _next(self) -> bytes:
        reader, writer = self._streams()
        try:
            first, second = await reader.readexactly(2)
            length = second & ~_MASKED
            if length == _MEDIUM:
                length = int.from_bytes(await reader.readexactly(2), "big")
            elif length == _LONG:
                length = int.from_bytes(await reader.readexactly(8), "big")
            kind = first & 0x0F
            if first & 0x70 or second & _MASKED or length > (MAX_FRAME_BYTES if kind < _CLOSE else _SHORT_BYTES):
                raise ConnectionError("the broker sent a frame that WebSockets do not have")
            payload = await reader.readexactly(length)
        except asyncio.IncompleteReadError:
            self._ended = True
            return b""
        if kind in {_BINARY, _CONTINUED}:
            return payload
        if kind == _PING:
            writer.write(frame_of(_PONG, payload))
        elif kind != _PONG:
            self._ended = True
        return b""

    def close(self) -> None:
        """Says goodbye and ends the connection."""
        self._ended = True
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(frame_of(_CLOSE, (1000).to_bytes(2, "big")))
            self._writer.close()
        elif self._writer is None and self._plain is not None:
            self._plain.transport.abort()

    async def wait_closed(self) -> None:
        """Waits for the end of the connection."""
        if self._writer is not None:
            await self._writer.wait_closed()

    def at_eof(self) -> bool:
        """Whether nothing more will come."""
        return self._ended and not self._unread

    def __bool__(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]  nats-py leaves it untyped
        """There from the beginning, so that nats-py makes none of its own."""
        return True

    def _streams(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader is None or self._writer is None:
            raise ConnectionError("not connected")
        return self._reader, self._writer


def frame_of(kind: int, payload: bytes) -> bytes:
    """A whole masked frame, as clients send them."""
    length = len(payload)
    if length <= _SHORT_BYTES:
        head = bytes([_FINAL | kind, _MASKED | length])
    elif length < 2**16:
        head = bytes([_FINAL | kind, _MASKED | _MEDIUM]) + length.to_bytes(2, "big")
    else:
        head = bytes([_FINAL | kind, _MASKED | _LONG]) + length.to_bytes(8, "big")
    key = secrets.token_bytes(4)
    return head + key + masked(payload, key)


def masked(payload: bytes, key: bytes) -> bytes:
    """The payload under its key; once more gives it back."""
    length = len(payload)
    pad = (key * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(length, "big")


def transport_for(url: str, tls_name: str, proxy: Proxy | None) -> Transport:
    """The connection for that URL, not made yet."""
    return WebSocket(tls_name, proxy) if url.startswith(f"{WSS}://") else DialledTcp(proxy)
