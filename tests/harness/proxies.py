"""A SOCKS5 and an HTTP proxy in a few lines, with or without a password, that remember where they were asked to go."""

import asyncio
import base64
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class FakeProxy:
    """A proxy that runs."""

    scheme: str
    login: tuple[str, str] | None
    port: int = 0
    asked: list[str] = field(default_factory=list)
    refusing: bool = False
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def setting(self) -> str:
        """As an agent's setting names it."""
        login = f"{self.login[0]}:{self.login[1]}@" if self.login else ""
        return f"{self.scheme}://{login}127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            where = await (self._socks(reader, writer) if self.scheme == "socks5" else self._http(reader, writer))
            if where is not None:
                await self._pass_on(reader, writer, *where)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.tasks.discard(task)
            writer.transport.abort()

    async def _socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int] | None:
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        wanted = 2 if self.login else 0
        writer.write(bytes([5, wanted if wanted in methods else 255]))
        if wanted not in methods:
            await writer.drain()
            return None
        if self.login:
            await reader.readexactly(1)
            user = await reader.readexactly((await reader.readexactly(1))[0])
            password = await reader.readexactly((await reader.readexactly(1))[0])
            good = (user.decode(), password.decode()) == self.login
            writer.write(bytes([1, 0 if good else 1]))
            if not good:
                await writer.drain()
                return None
        *_, kind = await reader.readexactly(4)
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = str(ipaddress.ip_address(await reader.readexactly(4 if kind == 1 else 16)))
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append(f"{host}:{port}")
        writer.write(bytes([5, 2 if self.refusing else 0, 0, 1, 0, 0, 0, 0, 0, 0]))
        await writer.drain()
        return None if self.refusing else (host, port)

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int] | None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        host, _, port = head.split(" ")[1].rpartition(":")
        self.asked.append(f"{host}:{port}")
        login = base64.b64encode(":".join(self.login).encode()).decode() if self.login else ""
        if self.login and f"Proxy-Authorization: Basic {login}" not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        elif self.refusing:
            writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.drain()
            return host, int(port)
        await writer.drain()
        return None

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
        there, away = await asyncio.open_connection(host, port)
        try:
            await asyncio.wait(
                {asyncio.ensure_future(_copy(reader, away)), asyncio.ensure_future(_copy(there, writer))},
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            away.transport.abort()
            writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def running_proxy(scheme: str, *, login: tuple[str, str] | None = None) -> AsyncIterator[FakeProxy]:
    """A proxy on a free port."""
    proxy = FakeProxy(scheme, login)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in tuple(proxy.tasks):
            task.cancel()
        await asyncio.gather(*proxy.tasks, return_exceptions=True)
