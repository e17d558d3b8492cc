"""Calls to Xray's API over its unix socket, with a limit of time and our own errors."""

import asyncio
from pathlib import Path
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import Message
from grpc import aio

from xfleet_xraykit.errors import XrayDown, XrayHung, XrayRefused

CALL_TIMEOUT_S = 5.0
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)

_CONNECTION_LOST = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL})
_STREAM_REMOVED = "Stream removed"
"""What grpc says, with the code of an application's error, when the other side dies during a call."""

Answer = TypeVar("Answer", bound=Message)


class _Call(Protocol):
    def __call__(self, request: Message, *, timeout: float) -> Any: ...


class ApiChannel:
    """One connection to one Xray; opened at the first call, made again by itself."""

    def __init__(self, socket: Path, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self.socket = socket
        self._timeout_s = timeout_s
        self._channel: aio.Channel | None = None
        self._calls: dict[str, _Call] = {}

    async def call(
        self, method: str, request: Message, answer: type[Answer], *, timeout_s: float | None = None
    ) -> Answer:
        """The answer to one call. Raises `XrayDown`, `XrayHung` or `XrayRefused`."""
        call = self._calls.get(method) or self._prepare(method, answer)
        try:
            return await call(request, timeout=timeout_s or self._timeout_s)
        except aio.AioRpcError as error:
            raise _translated(error, method) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise XrayDown("The connection to Xray was closed.") from None  # by `close`; nobody cancelled the caller

    async def answers(self, timeout_s: float) -> bool:
        """Whether somebody accepts connections on the socket, without waiting for back-off."""
        try:
            async with asyncio.timeout(timeout_s):
                _, writer = await asyncio.open_unix_connection(self.socket)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    async def close(self) -> None:
        """Closes the connection; a later call opens a new one."""
        channel, self._channel = self._channel, None
        self._calls.clear()
        if channel is not None:
            await channel.close()

    def _prepare(self, method: str, answer: type[Message]) -> _Call:
        if self._channel is None:
            self._channel = aio.insecure_channel(f"unix://{self.socket.absolute()}", options=_OPTIONS)
        call = self._channel.unary_unary(method, request_serializer=_to_bytes, response_deserializer=answer.FromString)
        self._calls[method] = call
        return call


def _to_bytes(message: Message) -> bytes:
    return message.SerializeToString()


def _translated(error: aio.AioRpcError, method: str) -> Exception:
    name = method.rpartition("/")[2]
    text = error.details() or ""
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return XrayHung(f"Xray did not answer {name} in time.")
    if error.code() in _CONNECTION_LOST or text == _STREAM_REMOVED:
        return XrayDown(f"Xray does not answer {name}: {text}")
    return XrayRefused(text or "Xray refused the call without a word.", call=name)
