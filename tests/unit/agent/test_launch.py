"""The launcher over releases that are small scripts: keeps one running, and goes back from one that fails."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.broker import eventually
from xfleet_agent import launch

STEADY = """#!/bin/sh
echo "$(basename "$(dirname "$(dirname "$0")")") $*" >>"$XFLEET_INSTALL_DIR/started"
trap 'echo TERM >>"$XFLEET_INSTALL_DIR/heard"; exit 0' TERM
trap 'echo INT >>"$XFLEET_INSTALL_DIR/heard"; exit 0' INT
MARK
while :; do sleep 0.05; done
"""
CONNECTS = STEADY.replace("MARK", 'echo "{\\"pid\\": $$}" >"$XFLEET_INSTALL_DIR/connected"')
SILENT = STEADY.replace("MARK", "")
ENDS = SILENT.replace("while :; do sleep 0.05; done", "exit 7")


@dataclass
class Place:
    """An installation."""

    root: Path
    launcher: asyncio.subprocess.Process | None = None

    def add(self, release: str, script: str) -> None:
        program = self.root / "releases" / release / "bin" / "xfleet-agent"
        program.parent.mkdir(parents=True)
        program.write_text(script.replace("$(basename", f"{release} $(basename", 1))
        program.chmod(0o755)

    def point(self, name: str, release: str) -> None:
        (self.root / name).unlink(missing_ok=True)
        (self.root / name).symlink_to(Path("releases") / release)

    def upgrade(self, release: str = "2", previous: str = "1", *, probation_s: float = 30, switch: bool = True) -> None:
        """As the agent does it."""
        pending = {
            "version": release, "release": release, "previous": previous, "previous_version": previous,
            "probation_s": probation_s, "starts_count": 0,
        }  # fmt: skip
        (self.root / "update.json").write_text(json.dumps(pending))
        if switch:
            self.point("previous", previous)
            self.point("current", release)

    def read(self, name: str) -> Any:
        path = self.root / name
        return json.loads(path.read_text()) if path.exists() else None

    def lines(self, name: str) -> list[str]:
        path = self.root / name
        return path.read_text().splitlines() if path.exists() else []

    @property
    def started(self) -> list[str]:
        """Releases in the order of their starts."""
        return [line.split()[0] for line in self.lines("started")]

    @property
    def current(self) -> str:
        return (self.root / "current").readlink().name


@pytest.fixture
def place(tmp_path: Path) -> Place:
    shutil.copy(launch.__file__, tmp_path / "launch")
    place = Place(tmp_path)
    place.add("1", CONNECTS)
    place.point("current", "1")
    return place


@asynccontextmanager
async def launched(place: Place, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-IS", str(place.root / "launch"), *arguments, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.terminate()
            await asyncio.wait_for(child.wait(), 30)


async def test_it_passes_its_arguments_and_signals_on_and_ends_with_its_agent(place: Place) -> None:
    for how, heard in ((signal.SIGTERM, "TERM"), (signal.SIGINT, "INT")):
        (place.root / "connected").unlink(missing_ok=True)
        async with launched(place, "--state-dir", "/x y") as launcher:
            await eventually((place.root / "connected").exists)
            launcher.send_signal(how)
            assert await asyncio.wait_for(launcher.wait(), 30) == 0
        assert place.lines("heard")[-1] == heard
        assert place.lines("started")[-1].endswith("run --state-dir /x y")


async def test_a_release_that_ends_three_times_gives_way(place: Place) -> None:
    place.add("2", ENDS)
    place.upgrade()
    async with launched(place):
        await eventually(lambda: place.started[-1:] == ["1"], within_s=20)
        await eventually((place.root / "connected").exists)
    assert place.started == ["2", "2", "2", "1"]
    assert (place.current, place.read("update.json")) == ("1", None)
    failed = place.read("failed.json")
    assert (failed["version"], failed["previous"]) == ("2", "1")


async def test_a_release_that_never_connects_gives_way_when_its_time_is_over(place: Place) -> None:
    place.add("2", SILENT)
    place.upgrade(probation_s=1)
    async with launched(place):
        await eventually(lambda: place.started == ["2", "1"], within_s=20)
    assert place.lines("heard")[0] == "TERM"
    assert "within 1 s" in place.read("failed.json")["reason"]


async def test_a_release_that_connects_stays(place: Place) -> None:
    place.add("2", CONNECTS)
    place.upgrade()
    async with launched(place):
        await eventually(lambda: place.read("update.json") is None)
        assert place.current == "2"
    assert place.read("failed.json") is None


async def test_an_agent_that_ends_well_is_started_again_from_the_release_of_now(place: Place) -> None:
    place.add("2", CONNECTS)
    async with launched(place):
        pid = await eventually(lambda: place.read("connected"))
        place.upgrade()
        os.kill(pid["pid"], signal.SIGTERM)
        await eventually(lambda: place.started == ["1", "2"])
        await eventually(lambda: place.read("update.json") is None)


@pytest.mark.parametrize(
    "torn",
    [
        "garbage", "[]", "{}",
        '{"version": "2", "release": "../../x", "previous": "1", "previous_version": "1"}',
        '{"version": "2", "release": "1", "previous": "gone", "previous_version": "1"}',
    ],
    ids=["garbage", "list", "empty", "elsewhere", "nowhere"],
)  # fmt: skip
async def test_an_order_that_means_nothing_is_forgotten(place: Place, torn: str) -> None:
    (place.root / "update.json").write_text(torn)
    async with launched(place):
        await eventually((place.root / "connected").exists)
    assert (place.current, (place.root / "update.json").exists()) == ("1", False)


async def test_an_upgrade_torn_before_its_switch_is_forgotten(place: Place) -> None:
    place.add("2", ENDS)
    place.upgrade(switch=False)
    async with launched(place):
        await eventually((place.root / "connected").exists)
    assert (place.started, place.read("update.json"), place.read("failed.json")) == (["1"], None, None)


async def test_a_probation_goes_on_after_the_launcher_was_killed(place: Place) -> None:
    place.add("2", ENDS)
    place.upgrade()
    for count in (1, 2):
        async with launched(place) as launcher:
            await eventually(lambda count=count: len(place.started) >= count)
            launcher.kill()
            await launcher.wait()
    async with launched(place):
        await eventually(lambda: place.started[-1:] == ["1"], within_s=20)
    assert place.started.count("2") <= 4


async def test_the_agent_ends_with_a_launcher_that_is_killed(place: Place) -> None:
    async with launched(place) as launcher:
        await eventually(lambda: place.read("connected"))
        launcher.kill()
        await launcher.wait()
    await eventually(lambda: place.lines("heard") == ["TERM"])


async def test_only_one_launcher_runs_in_a_place(place: Place) -> None:
    async with launched(place):
        await eventually(lambda: place.read("connected"))
        async with launched(place) as second:
            assert await asyncio.wait_for(second.wait(), 10) == 2
    assert place.started == ["1"]
