"""Xray's processes: found again whatever was forgotten, their logs kept short."""

import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.broker import eventually
from xfleet_agent.plan import Shape, shape_of
from xfleet_agent.processes import OUTPUT_KEPT_BYTES, Processes
from xfleet_contracts.desired_state import SettingsBody
from xfleet_xraykit.errors import XrayDown
from xfleet_xraykit.launcher import WheelLauncher
from xfleet_xraykit.process import is_running, wait_exit
from xfleet_xraykit.state import State


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    with tempfile.TemporaryDirectory(prefix="xp-") as name:
        made = Processes(WheelLauncher(), run_dir=Path(name, "run"), log_dir=Path(name, "logs"))
        yield made
        for record in made.list_survivors():
            await made.end(made.unreachable(record))


async def test_an_xray_is_found_again_even_when_its_files_are_gone(processes: Processes) -> None:
    running = await processes.start(State(), Shape())
    [record] = processes.list_survivors()
    assert record == running.record
    found = await processes.find(record, Shape())
    assert found is not None
    await found.api.close()
    shutil.rmtree(processes._run_dir)
    [orphan] = processes.list_survivors()
    assert orphan.start_id == running.start_id
    assert await processes.find(orphan, Shape()) is None
    await processes.end(running)
    assert processes.list_survivors() == []


async def test_an_xray_that_does_not_start_leaves_nothing_behind(processes: Processes) -> None:
    broken = State(settings=SettingsBody(dns={"servers": 5}))
    with pytest.raises(XrayDown):
        await processes.start(broken, shape_of(broken))
    assert processes.list_survivors() == []
    assert list(processes._run_dir.iterdir()) == []


async def test_long_logs_are_set_aside_while_xray_runs(processes: Processes) -> None:
    running = await processes.start(State(settings=SettingsBody(log_level="debug")), Shape())
    log = processes._log_dir / "error.log"
    await eventually(lambda: log.exists() and log.stat().st_size)
    assert await processes.rotate_logs([running], limit_bytes=1)
    assert log.with_suffix(".log.1").stat().st_size
    await eventually(log.exists)
    assert is_running(running.record)
    assert not await processes.rotate_logs([running])
    # what it prints goes to a file it was given: that one is emptied in place
    output = processes._log_dir / "output.log"
    with output.open("ab") as file:
        file.write(b"x" * 2 * OUTPUT_KEPT_BYTES + b"the end")
    await processes.rotate_logs([running])
    assert output.stat().st_size == 0
    kept = output.with_suffix(".log.1").read_bytes()
    assert len(kept) == OUTPUT_KEPT_BYTES
    assert kept.endswith(b"the end")
    # an Xray that cannot open a new log keeps the old one
    os.kill(running.record.pid, signal.SIGKILL)
    await wait_exit(running.record)
    log.write_text("last words\n")
    with pytest.raises(XrayDown):
        await processes.rotate_logs([running], limit_bytes=1)
    assert log.read_text() == "last words\n"
    await processes.end(running)
