"""Real Xray on loopback for tests: servers from desired state, clients from share links, sinks that count bytes."""

import asyncio
import contextlib
import datetime as dt
import json
import socket
import ssl
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from xfleet_contracts.desired_state import ClientBody, InboundBody, OutboundBody
from xfleet_xraykit.api import XrayApi
from xfleet_xraykit.convert import ScratchConverter
from xfleet_xraykit.generate import complete_client, complete_inbound
from xfleet_xraykit.launcher import WheelLauncher
from xfleet_xraykit.links import client_config, parse_link
from xfleet_xraykit.process import StartedXray, stop
from xfleet_xraykit.render import render_config
from xfleet_xraykit.state import State

HEADER = struct.Struct(">QQ")
"""Payload bytes that follow, bytes to send back; its own 16 bytes count as sent."""
TARGET_NAME = "reality.test"
UP_BYTES, DOWN_BYTES = 3_000_000, 7_000_000
_CHUNK_BYTES = 65536


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody holds now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Sink:
    """A TCP server that counts what it gets and sends back as many bytes as each stream's header asks for."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.received_bytes = 0
        self.sent_bytes = 0
        self.streams_count = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in list(self._writers)), return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.streams_count += 1
        try:
            up, down = HEADER.unpack(await reader.readexactly(HEADER.size))
            self.received_bytes += HEADER.size
            await asyncio.gather(self._receive(reader, up), self._send(writer, down))
            writer.write_eof()
            while data := await reader.read(_CHUNK_BYTES):
                self.received_bytes += len(data)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            await _close(writer)
            self._writers.discard(writer)

    async def _receive(self, reader: asyncio.StreamReader, count: int) -> None:
        while count and (data := await reader.read(min(count, _CHUNK_BYTES))):
            self.received_bytes += len(data)
            count -= len(data)

    async def _send(self, writer: asyncio.StreamWriter, count: int) -> None:
        while count:
            data = bytes(min(count, _CHUNK_BYTES))
            writer.write(data)
            await writer.drain()
            self.sent_bytes += len(data)
            count -= len(data)


class TlsTarget:
    """A TLS 1.3 site for REALITY to show to strangers."""

    def __init__(self) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=_tls_context())
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(_CHUNK_BYTES)
        except OSError:
            pass
        finally:
            writer.transport.abort()


@dataclass
class XrayServer:
    """A running Xray, reached by its API."""

    state: State
    started: StartedXray
    api: XrayApi
    launcher: WheelLauncher
    directory: Path

    @classmethod
    @asynccontextmanager
    async def running(cls, state: State, **options: Any) -> AsyncIterator[Self]:
        """Starts Xray with this state; the default outbound may reach loopback."""
        if not state.outbounds:
            state.outbounds.append(direct_to_loopback())
        launcher = WheelLauncher()
        with tempfile.TemporaryDirectory(prefix="xs-") as name:
            directory = Path(name)
            api_socket = directory / "api.sock"
            config = render_config(state, api_socket=str(api_socket), **options)
            started = await launcher.start(config, api_socket=api_socket, output=directory / "output")
            api = XrayApi(api_socket, converter=ScratchConverter(launcher))
            try:
                await api.wait_ready(started)
                yield cls(state, started, api, launcher, directory)
            finally:
                await api.close()
                await stop(started)


@dataclass
class XrayClient:
    """A VPN app: an Xray that knows nothing but a share link."""

    socks_port: int
    started: StartedXray
    output: Path = field(repr=False)

    @classmethod
    @asynccontextmanager
    async def from_link(cls, link: str, *, send_through: str = "", mux: bool = False) -> AsyncIterator[Self]:
        """Starts a client; `send_through` is its own address, such as 127.0.0.2 (127.0.0.1 is never online)."""
        port = free_port()
        config = client_config(parse_link(link), socks_port=port, send_through=send_through, mux=mux)
        with tempfile.TemporaryDirectory(prefix="xc-") as name:
            output = Path(name, "output")
            started = await WheelLauncher().start(config, api_socket=Path(name, "none.sock"), output=output)
            try:
                await _until_listening(port)
                yield cls(port, started, output)
            finally:
                await stop(started)


@dataclass
class Stream:
    """One TCP stream through a client."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Sends, and waits until the local buffer has room."""
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self, count: int, *, timeout_s: float = 20.0) -> bytes:
        """Exactly so many bytes."""
        return await asyncio.wait_for(self.reader.readexactly(count), timeout_s)

    async def close(self) -> None:
        """Ends the stream."""
        await _close(self.writer)


async def open_stream(client: XrayClient, port: int, *, host: str = "127.0.0.1", timeout_s: float = 10.0) -> Stream:
    """A stream through the client's SOCKS5 to this address."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.socks_port)
    try:
        async with asyncio.timeout(timeout_s):
            writer.write(b"\x05\x01\x00")
            assert await reader.readexactly(2) == b"\x05\x00"
            writer.write(b"\x05\x01\x00\x01" + socket.inet_aton(host) + port.to_bytes(2, "big"))
            answer = await reader.readexactly(10)
            assert answer[1] == 0, f"SOCKS5 answered {answer[1]}"
    except BaseException:
        await _close(writer)
        raise
    return Stream(reader, writer)


async def transfer(
    client: XrayClient, sink: Sink, up_bytes: int = UP_BYTES, down_bytes: int = DOWN_BYTES, *, timeout_s: float = 30.0
) -> tuple[int, int]:
    """Moves so much payload through the client; returns what was sent (with the header) and what came back."""
    stream = await open_stream(client, sink.port, host=sink.host, timeout_s=timeout_s)
    try:
        async with asyncio.timeout(timeout_s):
            stream.writer.write(HEADER.pack(up_bytes, down_bytes))
            _, got = await asyncio.gather(_upload(stream, up_bytes), _download(stream, down_bytes))
            stream.writer.write_eof()
            await stream.reader.read()
    finally:
        await stream.close()
    return HEADER.size + up_bytes, got


async def until(condition: Callable[[], Awaitable[object]], *, timeout_s: float = 5.0) -> None:
    """Waits until the condition holds."""
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110  the world outside has no event
            await asyncio.sleep(0.02)


async def passes(client: XrayClient, sink: Sink, *, timeout_s: float = 3.0) -> bool:
    """Whether a new stream through the client reaches the sink and back."""
    try:
        return await transfer(client, sink, 10, 10, timeout_s=timeout_s) == (26, 10)
    except (OSError, TimeoutError, asyncio.IncompleteReadError, AssertionError):
        return False


def direct_to_loopback() -> OutboundBody:
    """The direct outbound of a server that may reach private addresses."""
    return OutboundBody(tag="direct", protocol="freedom", settings={"finalRules": [{"action": "allow"}]})


def reality_inbound(ref: int, target_port: int, *, port: int | None = None) -> InboundBody:
    """VLESS over raw with REALITY, keys generated."""
    settings = {"target": f"127.0.0.1:{target_port}", "serverNames": [TARGET_NAME]}
    stream = {"network": "raw", "security": "reality", "realitySettings": settings}
    return complete_inbound(_inbound(ref, port, stream))


def ws_inbound(ref: int, *, port: int | None = None, path: str = "/chat") -> InboundBody:
    """VLESS over WebSocket without TLS."""
    return complete_inbound(_inbound(ref, port, {"network": "ws", "wsSettings": {"path": path}}))


def new_client(client_ref: int, inbound: InboundBody) -> ClientBody:
    """A client with a fresh credential."""
    return complete_client(ClientBody(client=client_ref, inbound=inbound.ref), inbound)


def state_of(inbounds: Mapping[InboundBody, list[ClientBody]] | list[tuple[InboundBody, list[ClientBody]]]) -> State:
    """Desired state of these inbounds with their clients."""
    pairs = list(inbounds.items()) if isinstance(inbounds, Mapping) else inbounds
    return State(
        inbounds={body.ref: body for body, _ in pairs},
        clients={body.ref: {f"{each.client}.{body.ref}": each for each in clients} for body, clients in pairs},
    )


def write_config(directory: Path, config: Mapping[str, Any]) -> Path:
    """The configuration as a file, for tests that hand one to a program."""
    path = directory / "config.json"
    path.write_text(json.dumps(config))
    return path


def _inbound(ref: int, port: int | None, stream: dict[str, Any]) -> InboundBody:
    return InboundBody(
        ref=ref, listen="127.0.0.1", port=port or free_port(), protocol="vless", settings={}, stream_settings=stream
    )


async def _upload(stream: Stream, count: int) -> None:
    while count:
        size = min(count, _CHUNK_BYTES)
        await stream.send(bytes(size))
        count -= size


async def _download(stream: Stream, count: int) -> int:
    got = 0
    while got < count and (data := await stream.reader.read(_CHUNK_BYTES)):
        got += len(data)
    return got


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _until_listening(port: int, *, timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.01)
                continue
            await _close(writer)
            return


def _tls_context() -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, TARGET_NAME)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(TARGET_NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    with tempfile.TemporaryDirectory() as name_of_directory:
        pem = Path(name_of_directory, "target.pem")
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(pem)
    return context
