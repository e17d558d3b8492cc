"""Disk: tells once when the state directory's file system runs low, and once when there is room again."""

import os
from pathlib import Path

from xfleet_agent.events import Events
from xfleet_runtime.log import get_logger

ENOUGH_FACTOR = 1.25
"""There is room again only well above the bound, so that a file system at its edge does not tell all the time."""
_log = get_logger(__name__)


class DiskWatch:
    """Remembers whether it is low."""

    def __init__(self, state_dir: Path, events: Events, *, low_bytes: int) -> None:
        self._state_dir = state_dir
        self._events = events
        self._low_bytes = low_bytes
        self.low = False

    def look(self) -> None:
        """Compares the free space with the bound; touches the disk, so it runs on the worker thread."""
        try:
            free_bytes, total_bytes = free_space(self._state_dir)
        except OSError as error:
            _log.warning("the free space is unknown", error=error.strerror)
            return
        if not self.low and free_bytes < self._low_bytes:
            self.low = True
            self._events.tell("disk_low", **self._details(free_bytes, total_bytes))
        elif self.low and free_bytes >= self._low_bytes * ENOUGH_FACTOR:
            self.low = False
            self._events.tell("disk_ok", **self._details(free_bytes, total_bytes))

    def _details(self, free_bytes: int, total_bytes: int) -> dict[str, str | int]:
        return {"path": str(self._state_dir), "free_bytes": free_bytes, "total_bytes": total_bytes}


def free_space(path: Path) -> tuple[int, int]:
    """(free for this user, total) bytes of the path's file system. Raises `OSError`."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
