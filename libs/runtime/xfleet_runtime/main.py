"""The edge of every console script: one clear line instead of a traceback, and the right exit code."""

import asyncio
import errno
import signal
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, NoReturn

import uvloop

from xfleet_runtime.errors import Unusable

EXIT_UNUSABLE = 2
_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_DATABASE_ERRORS = ("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_IOERR")


def run_main(command: Callable[[], object]) -> None:
    """Runs a command; `Unusable` becomes one line on stderr and exit code 2."""
    try:
        command()
    except Unusable as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        reason = describe_disk_error(error)
        if reason is None:
            raise
        _refuse(reason)


def describe_disk_error(error: Exception) -> str | None:
    """What to do about a disk that is full or read-only; None for every other error."""
    cause = getattr(error, "orig", None) or error  # SQLAlchemy wraps the driver's own
    if isinstance(cause, OSError) and cause.errno in _DISK_ERRORS:
        where = f" {cause.filename}" if cause.filename else " to disk"
        return f"Cannot write{where}: {cause.strerror}. Free space or make it writable."
    if isinstance(cause, sqlite3.Error) and str(getattr(cause, "sqlite_errorname", "")).startswith(_DATABASE_ERRORS):
        return f"Cannot write the database: {cause}. Free space or make its directory writable."
    return None


def _refuse(reason: str) -> NoReturn:
    with suppress(OSError):  # a log on the same full disk takes no more words
        sys.stderr.write(f"xfleet: {reason}\n")
        sys.stderr.flush()
    sys.exit(EXIT_UNUSABLE)


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
