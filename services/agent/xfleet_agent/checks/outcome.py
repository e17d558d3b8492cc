"""The outcome of one check, and the clock around it."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Literal, NamedTuple

from xfleet_contracts.care import CheckResult

TIMEOUT_S = 10.0
MAX_TEXT = 300


class Outcome(NamedTuple):
    """A status and its sentence."""

    status: Literal["ok", "warning", "failed"]
    text: str = ""


async def timed(name: str, check: Awaitable[Outcome], *, timeout_s: float = TIMEOUT_S) -> CheckResult:
    """The check's result, whatever happens to it."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(timeout_s):
            outcome = await check
    except TimeoutError:
        outcome = Outcome("failed", f"No answer within {timeout_s:g} s.")
    took_ms = int((time.monotonic() - started) * 1000)
    return CheckResult(name=name, status=outcome.status, text=outcome.text[:MAX_TEXT], took_ms=took_ms)
