"""One broker for the module, and for each test a controller, an agent and a sink of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.agent import AgentProcess, SmallController, agent_process
from harness.broker import FleetBroker, running_broker
from harness.xray import Sink


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[FleetBroker]:
    async with running_broker(tmp_path, streams=True) as running:
        yield running


@pytest.fixture
async def controller(broker: FleetBroker) -> AsyncIterator[SmallController]:
    async with SmallController.running(broker) as running:
        yield running


@pytest.fixture
async def agent(broker: FleetBroker, controller: SmallController) -> AsyncIterator[AgentProcess]:
    async with agent_process(broker) as running:
        await controller.heard()
        yield running


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as running:
        yield running
