"""The bound of free space: told once below it, once well above it."""

from pathlib import Path

from xfleet_agent import disk
from xfleet_agent.disk import DiskWatch, free_space
from xfleet_agent.events import Events
from xfleet_agent.fleet_clock import FleetClock
from xfleet_runtime.clock import SystemClock


def told(tmp_path: Path, low_bytes: int, looks: int = 3) -> list[str]:
    events = Events(FleetClock(SystemClock()))
    watch = DiskWatch(tmp_path, events, low_bytes=low_bytes)
    for _ in range(looks):
        watch.look()
    return [each.type for each in events._waiting]


def test_a_low_disk_is_told_once_and_room_again_only_well_above_the_bound(tmp_path: Path) -> None:
    total_bytes = free_space(tmp_path)[1]
    assert told(tmp_path, 2 * total_bytes) == ["disk_low"]
    events = Events(FleetClock(SystemClock()))
    watch = DiskWatch(tmp_path, events, low_bytes=int(free_space(tmp_path)[0] / (1 + (disk.ENOUGH_FACTOR - 1) / 2)))
    watch.low = True
    watch.look()
    assert watch.low
    assert events.peek() is None


def test_a_bound_of_nothing_never_tells(tmp_path: Path) -> None:
    assert told(tmp_path, 0) == []


def test_a_directory_that_is_gone_tells_nothing(tmp_path: Path) -> None:
    assert told(tmp_path / "gone", 1 << 60) == []
