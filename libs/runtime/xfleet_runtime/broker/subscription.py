"""A subscription that outlives connections: messages wait in our own queue, so a lost link cancels no handler."""

import asyncio
from collections.abc import Awaitable, Callable

from xfleet_runtime.broker.message import Incoming
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
Handler = Callable[[Incoming], Awaitable[None]]
PENDING_MAX = 8192
"""Messages that may wait for a handler; more are dropped and counted, as NATS would with a slow consumer."""
PENDING_MAX_BYTES = 64 * 1024 * 1024
"""The same by size."""


class Subscription:
    """Interest in a subject, renewed by the link on every new connection."""

    def __init__(self, subject: str, queue: str, handler: Handler, pending_max: int = PENDING_MAX) -> None:
        self.subject = subject
        self.queue = queue
        self.dropped_count = 0
        """Messages lost because handlers were too slow."""
        self._handler = handler
        self._pending_bytes = 0
        self._pending: asyncio.Queue[Incoming] = asyncio.Queue(pending_max)

    def deliver(self, message: Incoming) -> None:
        """Queues a message for the handlers, or drops it when they are too far behind."""
        if self._pending.full() or self._pending_bytes + len(message.payload) > PENDING_MAX_BYTES:
            self.dropped_count += 1
            if self.dropped_count.bit_count() == 1:
                _log.warning("handler too slow, messages dropped", subject=self.subject, dropped=self.dropped_count)
            if message.origin is not None:
                message.origin.settled()
            return
        self._pending_bytes += len(message.payload)
        self._pending.put_nowait(message)

    async def work(self) -> None:
        """Handles messages for ever, one after the other; a handler that fails loses its own message only."""
        while True:
            message = await self._pending.get()
            self._pending_bytes -= len(message.payload)
            try:
                await self._handler(message)
            except Exception:  # noqa: BLE001  the edge between bus and handler
                _log.exception("handler failed", subject=message.subject, subscription=self.subject)
            finally:
                self._pending.task_done()
                if message.origin is not None:
                    message.origin.settled()

    def discard(self) -> None:
        """Drops the messages that still wait."""
        while not self._pending.empty():
            message = self._pending.get_nowait()
            self._pending.task_done()
            self._pending_bytes -= len(message.payload)
            if message.origin is not None:
                message.origin.settled()

    async def settle(self) -> None:
        """Waits until every message queued so far has been handled."""
        await self._pending.join()
