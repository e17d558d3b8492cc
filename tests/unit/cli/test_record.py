"""What an `xfleet up` that was killed leaves behind."""

import asyncio
import os
from pathlib import Path

import msgspec
import psutil
import pytest

from xfleet_cli.up.record import RunRecord, Started, end_leftovers
from xfleet_runtime.errors import Unusable


async def sleeper() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)


async def test_what_still_runs_is_ended_and_the_record_cleared(tmp_path: Path) -> None:
    said: list[str] = []
    child = await sleeper()
    RunRecord(tmp_path / "run.json").note("agent", child.pid)
    await end_leftovers(tmp_path / "run.json", said.append)
    assert await asyncio.wait_for(child.wait(), 5) == -15
    assert "agent" in said[0]
    assert not (tmp_path / "run.json").exists()


async def test_a_stranger_with_the_same_number_is_left_alone(tmp_path: Path) -> None:
    child = await sleeper()
    try:
        started_at = psutil.Process(child.pid).create_time() - 100
        (tmp_path / "run.json").write_bytes(msgspec.json.encode({"agent": Started(child.pid, started_at)}))
        await end_leftovers(tmp_path / "run.json", pytest.fail)
        assert child.returncode is None
    finally:
        child.kill()
        await child.wait()


async def test_an_ended_part_is_forgotten(tmp_path: Path) -> None:
    record = RunRecord(tmp_path / "run.json")
    record.note("agent", os.getpid())
    record.forget("agent")
    await end_leftovers(tmp_path / "run.json", pytest.fail)


async def test_a_broken_record_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(Unusable, match="then remove the file"):
        await end_leftovers(tmp_path / "run.json", lambda _: None)
