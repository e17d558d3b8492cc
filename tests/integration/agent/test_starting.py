"""An agent that is ended while its Xray still comes up: nobody is left running whom nobody owns."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from harness.agent import AgentProcess, SmallController, agent_process, entities
from harness.broker import FleetBroker, eventually
from harness.xray import Sink, XrayClient, direct_to_loopback, new_client, passes, ws_inbound
from xfleet_contracts.desired_state import ClientBody, InboundBody
from xfleet_xraykit import wheel_child
from xfleet_xraykit.launcher import _site
from xfleet_xraykit.links import share_link
from xfleet_xraykit.process import StartedXray, is_running

CLIENT = 501

_GATED = """#!{python} -IS
import os, sys, time
if "-test" in sys.argv or "version" in sys.argv:
    sys.exit(print("Xray 1.2.3"))
while not os.path.exists({gate!r}):
    time.sleep(0.01)
os.execv(sys.executable, [sys.executable, "-I", "-S", {child!r}, "run", {site!r}, "0"])
"""


class Gate:
    """An Xray program that becomes Xray only when the gate is open."""

    def __init__(self, directory: Path) -> None:
        self._gate = directory / "gate"
        self.program = directory / "xray"
        text = _GATED.format(python=sys.executable, gate=str(self._gate), child=wheel_child.__file__, site=_site())
        self.program.write_text(text)
        self.program.chmod(0o700)

    def open(self) -> None:
        self._gate.touch()

    def shut(self) -> None:
        self._gate.unlink()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


@pytest.fixture
async def agent(broker: FleetBroker, controller: SmallController, gate: Gate) -> AsyncIterator[AgentProcess]:
    gate.open()
    async with agent_process(broker, xray_binary=str(gate.program)) as running:
        await controller.heard()
        yield running


async def starting(agent: AgentProcess, gate: Gate) -> StartedXray:
    """Starts the agent anew, without any Xray; the one it starts does not come up yet."""
    await agent.end(signal.SIGINT)
    assert agent.xrays() == []
    gate.shut()
    await agent.start()
    await eventually(lambda: len(agent.xrays()) == 1)
    return agent.xrays()[0]


def handles(agent: AgentProcess, number: signal.Signals) -> bool:
    """Whether the process has a handler for this signal by now."""
    status = Path(f"/proc/{agent.pid}/status").read_text()
    [caught] = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(caught, 16) >> (number - 1) & 1)


@asynccontextmanager
async def served(controller: SmallController) -> AsyncIterator[XrayClient]:
    inbound = ws_inbound(7001)
    client = new_client(CLIENT, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client))
    async with app_of(inbound, client) as app:
        yield app


@asynccontextmanager
async def app_of(inbound: InboundBody, client: ClientBody) -> AsyncIterator[XrayClient]:
    link = share_link(inbound, client, address="127.0.0.1", remark="t")
    async with XrayClient.from_link(link, send_through="127.0.0.2") as app:
        yield app


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["interrupted", "terminated"])
async def test_an_agent_that_is_told_to_end_leaves_no_xray_that_never_came_up(
    agent: AgentProcess, gate: Gate, number: signal.Signals
) -> None:
    xray = await starting(agent, gate)
    assert await agent.end(number) == 0
    assert not is_running(xray)
    assert agent.xrays() == []
    assert "Traceback" not in agent.log()


@pytest.mark.parametrize("came_up", [False, True], ids=["not_up", "came_up_alone"])
async def test_the_start_after_a_kill_finds_the_xray_that_nobody_noted(
    agent: AgentProcess, controller: SmallController, gate: Gate, sink: Sink, came_up: bool
) -> None:
    async with served(controller) as app:
        xray = await starting(agent, gate)
        await agent.end(signal.SIGKILL)
        assert is_running(xray)
        gate.open()
        if came_up:
            await eventually(lambda: passes(app, sink), within_s=15)
        await agent.start()
        await eventually(lambda: passes(app, sink), within_s=15)
        await eventually(lambda: len(agent.xrays()) == 1, within_s=15)
        if came_up:
            assert agent.xrays() == [xray]
        expected = (sink.received_bytes, sink.sent_bytes)
        await eventually(lambda: controller.ledger.of_client(CLIENT) == expected, within_s=15)
    assert not controller.ledger.gaps


async def test_an_interrupted_agent_also_ends_the_xray_it_had_not_yet_adopted(
    agent: AgentProcess, controller: SmallController, gate: Gate, sink: Sink
) -> None:
    async with served(controller) as app:
        assert await passes(app, sink)
        [xray] = agent.xrays()
        await agent.end(signal.SIGKILL)
        os.kill(xray.pid, signal.SIGSTOP)  # it answers nobody: adopting it takes a while
        await agent.start()
        await eventually(lambda: handles(agent, signal.SIGTERM))
        assert agent.process is not None
        agent.process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.2)
        os.kill(xray.pid, signal.SIGCONT)
        assert await agent.process.wait() == 0
    assert not is_running(xray)
    assert agent.xrays() == []


async def test_kills_at_any_moment_of_a_start_leave_one_xray_that_serves(
    agent: AgentProcess, controller: SmallController, gate: Gate, sink: Sink
) -> None:
    dice = random.Random(3)
    async with served(controller) as app:
        await agent.end(signal.SIGINT)
        for _ in range(5):
            await agent.start()
            await eventually(lambda: len(agent.xrays()) > 0, within_s=15)
            await asyncio.sleep(dice.uniform(0, 0.6))
            await agent.end(signal.SIGKILL)
        await agent.start()
        await eventually(lambda: passes(app, sink), within_s=15)
        await eventually(lambda: len(agent.xrays()) == 1, within_s=20)
        expected = (sink.received_bytes, sink.sent_bytes)
        await eventually(lambda: controller.ledger.of_client(CLIENT) == expected, within_s=15)
