"""Connections that say nothing are closed, one network opens so many, and whoever asks slowly is served."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import uvicorn

from xfleet_controller import patience

ASKED = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
POSTED = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx"


class Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def app(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep(0.5)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def serving(**how: Any) -> AsyncIterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(
        uvicorn.Config(app, loop="none", http=patience.patient(**how), ws="none", lifespan="off", log_config=None)
    )
    task = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()


async def ends(port: int, said: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("said", [b"", ASKED[:20], POSTED], ids=len)
async def test_whoever_does_not_finish_asking_is_cut(said: bytes) -> None:
    async with serving(per_network=1, patience_s=0.2) as port:
        assert await ends(port, said) == b""


async def test_an_answer_may_take_longer_than_asking() -> None:
    async with serving(per_network=1, patience_s=0.2) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for piece in (ASKED, ASKED[:9], ASKED[9:]):
            writer.write(piece)
        for _ in range(2):
            assert (await asyncio.wait_for(reader.readuntil(b"ok"), 5)).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_one_network_opens_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "is_loopback", lambda _: False)
    async with serving(per_network=2, patience_s=20) as port:
        kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        assert await ends(port, ASKED) == b""
        for reader, writer in kept:
            writer.write(ASKED)
            assert await asyncio.wait_for(reader.readuntil(b"ok"), 5)
            writer.close()
            await writer.wait_closed()

        async def again() -> bytes:
            return await ends(port, ASKED.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))

        assert (await again()).endswith(b"ok")
