"""Asks the panel whether it is ready, over loopback."""

import asyncio
import ssl

PROBE_TIMEOUT_S = 5.0


async def panel_answers(port: int, path: str, *, tls: bool) -> bool:
    """Whether GET on this path answers 200 within the timeout."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            return await _status(port, path, _blind_context() if tls else None) == 200  # noqa: PLR2004
    except (OSError, TimeoutError, ValueError, EOFError):
        return False


async def _status(port: int, path: str, context: ssl.SSLContext | None) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode("ascii"))
        line = await reader.readuntil(b"\r\n")
        return int(line.split(b" ")[1])
    finally:
        writer.close()


def _blind_context() -> ssl.SSLContext:
    """It only learns whether our own child on loopback answers; nothing is told to it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
