"""The log files of the parts: bounded, however long everything runs.

A part keeps its log open and appends, so a log that has grown is copied aside and emptied in its place. What is
written in the moment between is the price; a full disk empties the log without a copy.
"""

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import private_directory
from xfleet_runtime.log import get_logger

ROTATE_BYTES = 16 * 1024 * 1024
GENERATIONS_COUNT = 3
LOOK_EVERY_S = 20.0
_log = get_logger(__name__)


def open_log(path: Path) -> int:
    """A descriptor that appends to the log. Raises `Unusable`."""
    private_directory(path.parent)
    try:
        rotate(path, most_bytes=ROTATE_BYTES)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unusable(f"Cannot write the log {path}: {error.strerror}. Free space or fix its rights.") from error


async def keep_bounded(paths: Sequence[Path], *, most_bytes: int = ROTATE_BYTES, every_s: float = LOOK_EVERY_S) -> None:
    """Looks after these logs for ever; what cannot be done now is tried again."""
    while True:
        await asyncio.sleep(every_s)
        for path in paths:
            try:
                await asyncio.to_thread(rotate, path, most_bytes=most_bytes)
            except OSError as error:
                _log.warning("a log could not be rotated", path=str(path), error=error.strerror)


def rotate(path: Path, *, most_bytes: int, generations_count: int = GENERATIONS_COUNT) -> bool:
    """Puts aside what a large log holds and empties it; whether it did. Raises `OSError`."""
    try:
        if path.stat().st_size <= most_bytes:
            return False
    except FileNotFoundError:
        return False
    for number in range(generations_count, 1, -1):
        older = generation(path, number - 1)
        if older.exists():
            older.replace(generation(path, number))
    copy = path.with_name(f".{path.name}.copy")
    try:
        with (
            path.open("rb") as source,
            os.fdopen(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as to,
        ):
            shutil.copyfileobj(source, to, 1024 * 1024)
        copy.replace(generation(path, 1))
    except OSError as error:
        copy.unlink(missing_ok=True)
        _log.warning("a log was emptied without a copy", path=str(path), error=error.strerror)
    os.truncate(path, 0)
    return True


def generation(path: Path, number: int) -> Path:
    """The name of an older log: `controller.log.1` is the youngest of them."""
    return path.with_name(f"{path.name}.{number}")
