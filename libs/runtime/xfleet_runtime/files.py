"""Small files that must never be half written or readable by others."""

import fcntl
import os
import secrets
from contextlib import suppress
from pathlib import Path

from xfleet_runtime.errors import Unusable

ROOM_BYTES = 64 * 1024
"""Less free space than this is a full disk: not even a start's first writes fit."""


def write_private(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replaces the file in one step, durable before it returns, with these permission bits."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Makes renames inside the directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private_directory(path: Path) -> Path:
    """The directory, made with mode 0700 when missing. Raises `Unusable` when it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise Unusable(
            f"Cannot make the directory {path}: {error.strerror}. Choose another or fix its rights."
        ) from error
    return path


def writable_directory(path: Path) -> Path:
    """As `private_directory`, and something can be written there. Raises `Unusable` when the disk is full or read-only.

    Meant for a service's start: one clear word before anything is touched.
    """
    private_directory(path)
    trial = path / f".room.{secrets.token_hex(4)}"
    try:
        descriptor = os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, ROOM_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Unusable(f"Cannot write in {path}: {error.strerror}. Free space or make it writable.") from error
    finally:
        with suppress(OSError):
            trial.unlink()
    return path


def lock_exclusively(path: Path, *, owner: str) -> int:
    """A descriptor holding the lock until it is closed by the last process that has it.

    Raises `Unusable` naming `owner` when somebody else holds it.
    """
    private_directory(path.parent)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unusable(f"Cannot make {path}: {error.strerror}. Free space or make it writable.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Unusable(f"{owner} already runs on {path.parent}. Stop it first, or use another directory.") from None
    return descriptor
