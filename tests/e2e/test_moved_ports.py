"""Ports that change between two starts: the local agent finds its way."""

from pathlib import Path

import pytest

from harness.fleet import fleet_up
from harness.xray import free_port

pytestmark = [pytest.mark.real_xray, pytest.mark.real_broker, pytest.mark.timeout(180)]


async def test_the_local_agent_follows_a_broker_that_moved_to_another_port(tmp_path: Path) -> None:
    async with fleet_up(tmp_path) as fleet:
        before = fleet.broker_url
        await fleet.wait_online()
    ports = ("--panel-port", str(free_port()), "--broker-port", str(free_port()))
    async with fleet_up(tmp_path, *ports) as moved:
        assert moved.broker_url != before
        await moved.wait_online(within_s=30)
