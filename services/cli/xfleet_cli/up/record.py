"""Who was started, on disk: a start after `kill -9` finds and ends what the dead one left running.

Xray is never in here: it outlives its agent on purpose, and the next agent adopts it.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil

from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import write_private
from xfleet_runtime.log import get_logger

END_TIMEOUT_S = 15.0
_POLL_S = 0.05
_SAME_START_S = 1.0
_log = get_logger(__name__)


class Started(msgspec.Struct, frozen=True):
    """One process; its start time tells it from a later one with the same number."""

    pid: int
    started_at: float


class RunRecord:
    """The processes of this `xfleet up`, by part."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started: dict[str, Started] = {}

    def note(self, part: str, pid: int) -> None:
        """Remembers that this process runs the part."""
        try:
            self._started[part] = Started(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            self._started.pop(part, None)
        self._write()

    def forget(self, part: str) -> None:
        """The part has ended."""
        if self._started.pop(part, None) is not None:
            self._write()

    def clear(self) -> None:
        """Everything has ended."""
        self._started.clear()
        self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        """A full disk must not end a fleet that runs; an outdated record names processes by their start time."""
        try:
            write_private(self._path, msgspec.json.encode(self._started))
        except OSError as error:
            _log.warning("who runs could not be noted", path=str(self._path), error=error.strerror)


async def end_leftovers(path: Path, say: Callable[[str], None]) -> None:
    """Ends, in order, what an earlier `xfleet up` left running; by force what does not end in time."""
    try:
        known = msgspec.json.decode(path.read_bytes(), type=dict[str, Started])
    except FileNotFoundError:
        return
    except (OSError, msgspec.MsgspecError) as error:
        raise Unusable(
            f"{path} cannot be read ({error}), so it is unknown what still runs. End left-over xfleet processes, "
            "then remove the file."
        ) from error
    left = {part: process for part, started in known.items() if (process := _find(started)) is not None}
    if left:
        say(f"An earlier run was killed; ending what it left: {', '.join(sorted(left))}.")
    for process in left.values():
        _signal(process, force=False)
    await _wait_gone(list(left.values()))
    path.unlink(missing_ok=True)


async def _wait_gone(processes: list[psutil.Process]) -> None:
    try:
        async with asyncio.timeout(END_TIMEOUT_S):
            while any(_alive(process) for process in processes):  # noqa: ASYNC110  no event tells of a stranger's end
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        for process in processes:
            _signal(process, force=True)


def _find(started: Started) -> psutil.Process | None:
    try:
        process = psutil.Process(started.pid)
        same = abs(process.create_time() - started.started_at) < _SAME_START_S
    except psutil.Error:
        return None
    return process if same and _alive(process) else None


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal(process: psutil.Process, *, force: bool) -> None:
    try:
        if force:
            process.kill()
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        return
