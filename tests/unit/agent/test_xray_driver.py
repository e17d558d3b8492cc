"""What the driver writes down and waits for when an Xray ends at a bad moment."""

import asyncio
import sqlite3
import time
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest

from xfleet_agent import xray
from xfleet_agent.database import Worker
from xfleet_agent.setups import Setup
from xfleet_agent.state import StateStore
from xfleet_agent.trials import Program
from xfleet_agent.xray import SOURCE, XrayDriver


@pytest.fixture
def store(tmp_path: Path) -> Any:
    opened = StateStore(tmp_path / "state.db")
    yield opened
    opened.close()


def driver_of(store: StateStore, meter: Any) -> XrayDriver:
    processes = MagicMock()
    processes.end = AsyncMock()
    return XrayDriver(processes, meter, store, Worker(), MagicMock(), drain_s=0)


async def test_the_disk_never_names_a_program_that_died_as_the_one_to_start(store: StateStore) -> None:
    driver = driver_of(store, MagicMock(finish=AsyncMock()))
    driver.decisions = MagicMock(on_died=AsyncMock())
    before = Program(setup=Setup(source="1.0.0+aa"), launcher=MagicMock(), version="1.0.0")
    driver.setup = Setup(source="2.0.0+bb")
    driver._before = (before, time.monotonic() + 60)
    written: list[str] = []
    save_facts = store.save_facts
    store.save_facts = lambda **facts: (written.append(facts.get(SOURCE, "")), save_facts(**facts))[-1]  # type: ignore[method-assign]
    await driver._died(MagicMock(api=AsyncMock()), 1)
    assert written == ["1.0.0+aa"]


async def test_a_replaced_xray_is_kept_until_the_disk_takes_its_last_bytes(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xray, "DRAIN_POLL_S", 0.01)
    full = sqlite3.OperationalError("database or disk is full")
    meter = MagicMock(finish=AsyncMock(), read_until_quiet=AsyncMock(side_effect=[full, full, True]))
    driver = driver_of(store, meter)
    running = MagicMock(start_id="s1")
    driver.draining.append(running)
    await driver._drain(running, 0)
    assert meter.read_until_quiet.await_count == 3
    meter.finish.assert_awaited_once_with("s1", lost="")
    assert driver.draining == []


async def test_an_xray_that_was_tried_out_is_kept_until_the_disk_takes_its_last_bytes(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xray, "DRAIN_POLL_S", 0.01)
    full = sqlite3.OperationalError("database or disk is full")
    meter = MagicMock(finish=AsyncMock(), read_until_quiet=AsyncMock(side_effect=[full, full, True]))
    driver = driver_of(store, meter)
    running = MagicMock(start_id="s1")
    running.api.list_inbounds = AsyncMock(return_value=[])
    driver.draining.append(running)
    async with asyncio.TaskGroup() as group:
        driver._drains = group
        await driver.trials.give_up(running)
        assert driver.draining == [running]
    meter.finish.assert_awaited_once_with("s1", lost="")
    assert driver.draining == []
