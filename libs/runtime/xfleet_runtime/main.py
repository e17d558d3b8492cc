"""The edge of every console script: one clear line instead of a traceback, and the right exit code."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import uvloop

from xfleet_runtime.errors import Unusable

EXIT_UNUSABLE = 2


def run_main(command: Callable[[], object]) -> None:
    """Runs a command; `Unusable` becomes one line on stderr and exit code 2."""
    try:
        command()
    except Unusable as error:
        sys.stderr.write(f"xfleet: {error}\n")
        sys.exit(EXIT_UNUSABLE)
    except KeyboardInterrupt:
        sys.exit(130)


def run_async(main: Coroutine[Any, Any, None]) -> None:
    """Runs the service's main coroutine on uvloop."""
    uvloop.run(main)


async def run_until_signal(
    serve: Callable[[], Awaitable[None]], *, signals: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)
) -> signal.Signals | None:
    """Runs `serve` until it ends or a signal comes; then cancels it, waits for it and returns the signal."""
    loop = asyncio.get_running_loop()
    got: asyncio.Future[signal.Signals] = loop.create_future()
    for each in signals:
        loop.add_signal_handler(each, lambda s=each: got.done() or got.set_result(s))
    task = asyncio.ensure_future(serve())
    try:
        await asyncio.wait({task, got}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return got.result()
    finally:
        for each in signals:
            loop.remove_signal_handler(each)
