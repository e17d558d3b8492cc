"""Live traffic: one real Xray that is all clients at once, and a sink on loopback that answers with bytes."""

import asyncio
import contextlib
import random
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from xfleet_cli.demo.world import free_port
from xfleet_runtime.errors import Unusable
from xfleet_xraykit.launcher import WheelLauncher
from xfleet_xraykit.links import client_outbound, parse_link
from xfleet_xraykit.process import stop

LOOPBACK = "127.0.0.1"
CHUNK_BYTES = 16 * 1024
TOTAL_BYTES_S = 1_500_000
"""Of all clients together, so that a small machine hardly notices."""
LISTEN_TIMEOUT_S = 15.0
_SOCKS_HELLO = b"\x05\x01\x00"


def client_config(links: Sequence[Sequence[str]]) -> tuple[dict[str, Any], list[int]]:
    """One Xray with a SOCKS port per link, and those ports."""
    config: dict[str, Any] = {
        "log": {"loglevel": "warning", "access": "none"}, "inbounds": [], "outbounds": [], "routing": {"rules": []},
    }  # fmt: skip
    ports: list[int] = []
    for number, link in enumerate(each for client in links for each in client):
        port, tag = free_port(), f"c{number}"
        ports.append(port)
        socks = {"tag": f"in-{tag}", "listen": LOOPBACK, "port": port, "protocol": "socks", "settings": {"udp": False}}
        config["inbounds"].append(socks)
        config["outbounds"].append(client_outbound(parse_link(link)) | {"tag": tag})
        config["routing"]["rules"].append({"inboundTag": [f"in-{tag}"], "outboundTag": tag})
    return config, ports


@contextlib.asynccontextmanager
async def running_clients(links: Sequence[Sequence[str]]) -> AsyncIterator[list[int]]:
    """The clients' Xray for as long as the block; their SOCKS ports. Raises `Unusable`."""
    config, ports = client_config(links)
    with tempfile.TemporaryDirectory(prefix="xfleet-demo-clients-") as name:
        output = Path(name, "output")
        started = await WheelLauncher().start(config, api_socket=Path(name, "none.sock"), output=output)
        try:
            await _until_listening(ports[-1])
            yield ports
        finally:
            await stop(started)


async def move_bytes(ports: Sequence[int], *, total_bytes_s: int = TOTAL_BYTES_S) -> None:
    """Streams through all clients, some busy and some idle, for ever."""
    server = await asyncio.start_server(_serve, LOOPBACK, 0)
    sink_port = server.sockets[0].getsockname()[1]
    async with server, asyncio.TaskGroup() as group:
        for port in ports:
            group.create_task(_client(port, sink_port, total_bytes_s / max(len(ports), 1)))


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers every chunk that comes in with four as large."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(bytes(4 * len(data)))
            await writer.drain()
    writer.close()


async def _client(port: int, sink_port: int, bytes_s: float) -> None:
    """Bursts of a quarter to twice the usual rate, with pauses; a stream that ends is followed by another."""
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            await _burst(port, sink_port, bytes_s * random.uniform(0.25, 2), random.uniform(5, 20))  # noqa: S311
        await asyncio.sleep(random.uniform(0.5, 6))  # noqa: S311  no secret


async def _burst(port: int, sink_port: int, bytes_s: float, for_s: float) -> None:
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(_SOCKS_HELLO)
        await reader.readexactly(2)
        writer.write(b"\x05\x01\x00\x01" + socket.inet_aton(LOOPBACK) + sink_port.to_bytes(2, "big"))
        await asyncio.wait_for(reader.readexactly(10), LISTEN_TIMEOUT_S)
        until_s = loop.time() + for_s
        while loop.time() < until_s:
            size = min(CHUNK_BYTES, max(1, int(bytes_s / 10)))
            writer.write(bytes(size))
            await asyncio.wait_for(reader.readexactly(4 * size), LISTEN_TIMEOUT_S)
            await asyncio.sleep(5 * size / bytes_s)
    finally:
        writer.transport.abort()


async def _until_listening(port: int) -> None:
    try:
        async with asyncio.timeout(LISTEN_TIMEOUT_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection(LOOPBACK, port)
                except OSError:
                    await asyncio.sleep(0.05)
                    continue
                writer.transport.abort()
                return
    except TimeoutError:
        raise Unusable("The demo's clients did not start: their Xray does not listen.") from None
