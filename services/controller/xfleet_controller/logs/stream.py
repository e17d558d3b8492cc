"""A live log as a stream: to programs as JSON, to the panel as fragments."""

from collections.abc import AsyncIterator
from typing import Any

from litestar import Request

from xfleet_contracts.errors import Refusal
from xfleet_contracts.logs import LogsRead
from xfleet_controller.auth.rights import authorize
from xfleet_controller.context import Context
from xfleet_controller.edge import find_actor
from xfleet_controller.logs.hub import Batch, LogHub
from xfleet_controller.orders.verbs import LOGS_READ

PING = b": still here\n\n"
PING_S = 15.0
LOOK_S = 2.0
CHECK_S = 10.0
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
EVENTS = "text/event-stream"


async def batches_of(
    request: Request[Any, Any, Any], context: Context, hub: LogHub, sid: str, order: LogsRead
) -> AsyncIterator[Batch | None]:
    """First an empty batch, when the log is followed; then what comes, and None now and then.

    Ends with an error, or quietly with the session or the controller.
    """
    clock = context.clock
    try:
        async with hub.watching(sid, order.log, order.contains) as watcher:
            yield Batch()
            checked_s = told_s = clock.monotonic_s()
            while not context.pulse.closed:
                batch = await watcher.next(LOOK_S)
                now_s = clock.monotonic_s()
                if batch is not None or now_s - told_s >= PING_S:
                    yield batch
                    told_s = now_s
                if batch is not None and batch.error:
                    return
                if now_s - checked_s >= CHECK_S:
                    if not await _may_still_read(request):
                        return
                    checked_s = now_s
    except Refusal as refusal:
        yield Batch(error=refusal.code)


async def _may_still_read(request: Request[Any, Any, Any]) -> bool:
    """Whether the session the stream began with still holds, and still allows this."""
    try:
        authorize(await find_actor(request), LOGS_READ.action)
    except Refusal:
        return False
    return True
