"""Xray's process: started so that it outlives us, known again after we restarted, its end noticed either way."""

import asyncio
import os
import secrets
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from xfleet_runtime.errors import Unusable

LOCK_FD = 3
"""Where Xray holds the instance's lock."""
MAX_SOCKET_PATH_BYTES = 107
"""Linux takes no longer path for a unix socket."""
_KILL_AFTER_S = 5.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_INHERITED = ("PATH", "LANG", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")


class StartedXray(msgspec.Struct, frozen=True, kw_only=True):
    """A started Xray, as it can be kept on disk and found again."""

    pid: int
    boot_id: str
    start_time_ticks: int
    """With the boot id it tells this process from a later one of the same pid."""
    start_id: str
    """Random; counters belong to one start id."""
    api_socket: str


def spawn(
    argv: Sequence[str],
    *,
    given: bytes,
    output: Path,
    environment: Mapping[str, str],
    api_socket: str = "",
    lock_fd: int | None = None,
) -> StartedXray:
    """Starts a program in a session of its own.

    It reads `given` as standard input, appends its output to a file, has no parent-death signal and inherits nothing
    but the lock. Nobody else may wait for the pid: use `wait_exit`.
    """
    stdin = os.memfd_create("xray-config", os.MFD_CLOEXEC)
    try:
        with open(stdin, "wb", closefd=False) as file:
            file.write(given)
        os.lseek(stdin, 0, os.SEEK_SET)
        log = _open_log(output)
        try:
            actions: list[tuple[int, int, int]] = [(os.POSIX_SPAWN_DUP2, stdin, 0)]
            actions += [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
            if lock_fd is not None:
                actions.append((os.POSIX_SPAWN_DUP2, lock_fd, LOCK_FD))
            kept = 2 if lock_fd is None else LOCK_FD
            closing = [(os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inheritable() if descriptor > kept]
            pid = os.posix_spawn(
                argv[0],
                list(argv),
                child_environment(environment),
                file_actions=[*actions, *closing],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGHUP],
            )
            return _record_of(pid, api_socket)
        finally:
            os.close(log)
    except OSError as error:
        raise Unusable(f"Cannot start {argv[0]}: {error.strerror}.") from error
    finally:
        os.close(stdin)


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The little of our environment that Xray may see, and what is given."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ} | dict(extra)


def _record_of(pid: int, api_socket: str) -> StartedXray:
    found = _stat(pid)
    return StartedXray(
        pid=pid,
        boot_id=boot_id(),
        start_time_ticks=found[1] if found else 0,
        start_id=secrets.token_hex(8),
        api_socket=api_socket,
    )


def is_running(record: StartedXray) -> bool:
    """Whether this very process still runs: same boot, same pid, same start, not a zombie."""
    found = _stat(record.pid)
    return found is not None and found[0] not in "ZX" and _is_same(record)


def start_time_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when it does not run."""
    found = _stat(pid)
    return None if found is None or found[0] in "ZX" else found[1]


def boot_id() -> str:
    """This boot of the machine."""
    return _BOOT_ID.read_text().strip()


async def wait_exit(process: StartedXray | int) -> int | None:
    """Waits until the process has ended; its exit code (minus the signal), None when it is not our child.

    A record is waited for only while it is that very process; a bare pid is believed.
    """
    pid = process if isinstance(process, int) else process.pid
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return _reap(pid)
    try:
        if isinstance(process, int) or _is_same(process):
            await _ended(descriptor)
    finally:
        os.close(descriptor)
    return _reap(pid)


async def stop(record: StartedXray, *, kill_after_s: float = _KILL_AFTER_S) -> int | None:
    """Ends this very Xray and waits for it: SIGTERM, then SIGKILL when it does not listen.

    Returns its exit code when it was our child. A process that only took over the pid is left alone.
    """
    try:
        descriptor = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return _reap(record.pid)
    try:
        if not _is_same(record):
            return None
        _send(descriptor, signal.SIGTERM)
        try:
            async with asyncio.timeout(kill_after_s):
                await _ended(descriptor)
        except TimeoutError:
            _send(descriptor, signal.SIGKILL)
            await _ended(descriptor)
    finally:
        os.close(descriptor)
    return _reap(record.pid)


def socket_path(path: Path) -> Path:
    """The path, when it is short enough for a unix socket. Raises `Unusable` otherwise."""
    size = len(os.fsencode(path))
    if size > MAX_SOCKET_PATH_BYTES:
        raise Unusable(f"The path {path} is too long for a socket ({size} bytes); use a shorter data directory.")
    return path


def _inheritable() -> list[int]:
    """Descriptors somebody handed to us: a pipe among them would never end while Xray lives."""
    found: list[int] = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if os.get_inheritable(int(entry.name)):
                found.append(int(entry.name))
    return found


def _open_log(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unusable(f"Cannot write {path}: {error.strerror}. Make its directory or fix its rights.") from error


async def _ended(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)


def _send(descriptor: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, number)


def _is_same(record: StartedXray) -> bool:
    """Also true of a zombie, whose threads may still be ending."""
    found = _stat(record.pid)
    return found is not None and found[1] == record.start_time_ticks and record.boot_id == boot_id()


def _stat(pid: int) -> tuple[str, int] | None:
    """State and start time."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    after_name = text.rpartition(")")[2].split()
    return after_name[0], int(after_name[19])


def _reap(pid: int) -> int | None:
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if ended else None
