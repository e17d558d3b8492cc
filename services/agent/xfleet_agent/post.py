"""One HTTP request to the panel, through the agent's proxy; nothing of the answer is believed for its certificate.

The panel's TLS may be self-signed, and agents pin no web certificate: who may be believed is decided by signatures.
"""

import asyncio
import ssl
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from xfleet_runtime.broker import Proxy
from xfleet_runtime.broker.dial import dial

MAX_ANSWER_BYTES = 256 * 1024
_PORTS = {"https": 443, "http": 80}


class PostFailed(ConnectionError):  # noqa: N818  an outage is named for what is missing
    """No whole answer came."""


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes


async def post(url: str, body: bytes, headers: Mapping[str, str], *, proxy: Proxy | None, timeout_s: float) -> Answer:
    """Sends JSON and gives the answer. Raises `OSError`, `TimeoutError` or `PostFailed`."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise PostFailed("not an address of the web")
    port = parts.port or _PORTS[parts.scheme]
    async with asyncio.timeout(timeout_s):
        reader, writer = await dial(parts.hostname, port, proxy, limit=MAX_ANSWER_BYTES)
        try:
            if parts.scheme == "https":
                await writer.start_tls(_unverified(), server_hostname=parts.hostname)
            named = parts.netloc.rpartition("@")[2]
            lines = [
                f"POST {parts.path or '/'} HTTP/1.1",
                f"Host: {named}",
                "Content-Type: application/json",
                f"Content-Length: {len(body)}",
                "Connection: close",
                *(f"{name}: {value}" for name, value in headers.items()),
            ]
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            await writer.drain()
            return await _read(reader)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise PostFailed("the answer is cut or no HTTP") from error
        finally:
            writer.transport.abort()


async def _read(reader: asyncio.StreamReader) -> Answer:
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(status.split(" ")[1]), headers, await _body(reader, headers))


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(_bounded(int(headers.get("content-length", "0"))))
    body = b""
    while length := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        _bounded(len(body) + _bounded(length))
        body += await reader.readexactly(length)
        await reader.readexactly(2)
    return body


def _bounded(length: int) -> int:
    if not 0 <= length <= MAX_ANSWER_BYTES:
        raise PostFailed("the answer is too large")
    return length


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
