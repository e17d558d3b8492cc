"""Loops that go on: a failure is logged once with an id, then the loop starts again after a growing delay."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable

from xfleet_runtime.backoff import Backoff
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
HEALTHY_AFTER_S = 30.0


async def supervise(name: str, loop: Callable[[], Awaitable[None]], *, most_s: float = 30.0) -> None:
    """Runs the loop for ever; only cancellation ends it."""
    backoff = Backoff(most_s=most_s)
    clock = asyncio.get_running_loop()
    while True:
        started = clock.time()
        try:
            await loop()
            _log.warning("loop returned and is started again", loop=name)
        except Exception:  # noqa: BLE001  a supervisor is one of the places that may
            _log.exception("loop failed and is started again", loop=name, error_id=secrets.token_hex(4))
        if clock.time() - started > HEALTHY_AFTER_S:
            backoff.reset()
        await asyncio.sleep(backoff.next_s())


async def every(interval_s: float, step: Callable[[], Awaitable[object]], *, first_s: float | None = None) -> None:
    """Calls the step for ever at a fixed rhythm; a step that takes longer skips the beats it missed."""
    loop = asyncio.get_running_loop()
    due = loop.time() + (interval_s if first_s is None else first_s)
    while True:
        await asyncio.sleep(max(0.0, due - loop.time()))
        await step()
        missed = max(0, int((loop.time() - due) // interval_s))
        due += interval_s * (1 + missed)
