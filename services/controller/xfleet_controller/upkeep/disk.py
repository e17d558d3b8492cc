"""The controller's disk: told once when it runs low, and once when there is room again."""

import os
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.exc import DBAPIError

from xfleet_controller.context import Context
from xfleet_controller.outbox import note_event
from xfleet_runtime.log import get_logger

LOOK_EVERY_S = 60.0
ENOUGH_FACTOR = 1.25
"""There is room again only well above the bound, so that a disk at its edge does not tell all the time."""
LOW, ENOUGH = "disk_low", "disk_ok"
_log = get_logger(__name__)


class DiskWatch:
    """Remembers whether the data directory's file system is low."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._low_bytes = context.settings.disk_low_bytes
        self.low = False

    async def look(self) -> None:
        """Compares the free space with the bound; what cannot be told now is told at the next look."""
        try:
            free_bytes, total_bytes = free_space(self._context.settings.data_dir)
        except OSError as error:
            _log.warning("the free space is unknown", error=error.strerror)
            return
        low = free_bytes < (self._low_bytes * ENOUGH_FACTOR if self.low else self._low_bytes)
        if low == self.low:
            return
        kind = LOW if low else ENOUGH
        details = {
            "path": str(self._context.settings.data_dir),
            "free_bytes": free_bytes,
            "total_bytes": total_bytes,
        }
        (_log.warning if low else _log.info)(kind, **details)
        try:
            async with self._context.database.write() as session:
                note_event(session, kind, self._context.clock.now(), subject="controller", details=details)
        except DBAPIError as error:
            _log.warning("the disk's state could not be told", reason=str(error.orig))
            return
        self.low = low


def free_space(path: Path) -> tuple[int, int]:
    """(free for this user, total) bytes of the path's file system. Raises `OSError`."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


class DiskFigures(Collector):
    """Free space, for alarms."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def collect(self) -> list[GaugeMetricFamily]:
        """Nothing when it cannot be asked."""
        free = GaugeMetricFamily("xfleet_data_dir_free_bytes", "Free space of the data directory's file system.")
        try:
            free.add_metric([], free_space(self._context.settings.data_dir)[0])
        except OSError:
            return []
        return [free]
