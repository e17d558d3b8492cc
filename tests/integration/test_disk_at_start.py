"""A service that is started on a full or read-only disk says so in one line, changes nothing and ends."""

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from harness.agent import agent_process
from harness.broker import FleetBroker, eventually, free_ports, running_broker
from harness.disk import SmallDisk, small_disk
from harness.process import Outcome, run, script

SPOILED = {
    "full": (SmallDisk.fill, "No space left on device"),
    "read_only": (SmallDisk.make_read_only, "Read-only file system"),
}
Spoil = tuple[Callable[[SmallDisk], None], str]
pytestmark = [pytest.mark.real_broker, pytest.mark.real_xray]


@pytest.fixture(params=SPOILED)
def spoil(request: pytest.FixtureRequest) -> Spoil:
    return SPOILED[request.param]


@pytest.fixture
def disk(pytestconfig: pytest.Config) -> Iterator[SmallDisk]:
    with small_disk(pytestconfig) as mounted:
        yield mounted


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[FleetBroker]:
    async with running_broker(tmp_path, streams=True) as running:
        yield running


def was_refused(outcome: Outcome, directory: Path, reason: str) -> bool:
    """Whether it ended by itself with one clear line that names the place and the reason."""
    assert outcome.code == 2, outcome
    [line] = outcome.error_lines
    assert line.startswith("xfleet: "), line
    assert str(directory) in line, line
    assert reason in line, line
    return True


def names_in(directory: Path) -> set[str]:
    return {str(Path(folder, name)) for folder, _, names in os.walk(directory) for name in names}


async def prepared(directory: Path) -> None:
    """What an earlier run of the controller left."""
    [port] = free_ports(1)
    made = await run(
        [script("xfleet-controller"), "init", "--data-dir", str(directory), "--local-agent", "--broker-port", str(port)]
    )
    assert made.code == 0, made.err


@pytest.mark.parametrize("known", [False, True], ids=["new", "resumed"])
async def test_the_controller_refuses(disk: SmallDisk, spoil: Spoil, known: bool) -> None:
    data = disk.path / "data"
    if known:
        await prepared(data)
    else:
        data.mkdir()
    spoil[0](disk)
    before = names_in(data)
    command = [script("xfleet-controller"), "run", "--data-dir", str(data), "--port", "0"]
    assert was_refused(await run(command), data, spoil[1])
    assert was_refused(await run([script("xfleet-controller"), "init", "--data-dir", str(data)]), data, spoil[1])
    assert names_in(data) == before


@pytest.mark.parametrize("known", [False, True], ids=["new", "resumed"])
async def test_xfleet_up_refuses(disk: SmallDisk, spoil: Spoil, known: bool) -> None:
    data = disk.path / "data"
    if known:
        await prepared(data)
    else:
        data.mkdir()
    spoil[0](disk)
    before = names_in(data)
    panel, broker = free_ports(2)
    command = [
        script("xfleet"),
        "up",
        "--data-dir",
        str(data),
        "--panel-port",
        str(panel),
        "--broker-port",
        str(broker),
    ]
    assert was_refused(await run(command), data, spoil[1])
    assert names_in(data) == before


async def test_an_agent_refuses_before_it_spends_its_token(disk: SmallDisk, spoil: Spoil, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("not even read\n")
    spoil[0](disk)
    command = [script("xfleet-agent"), "run", "--state-dir", str(disk.path), "--token-file", str(token)]
    assert was_refused(await run(command), disk.path, spoil[1])
    command = [script("xfleet-agent"), "enroll", "--state-dir", str(disk.path), "--token-file", str(token)]
    assert was_refused(await run(command), disk.path, spoil[1])


async def test_an_agent_refuses_and_leaves_its_xray_serving(
    disk: SmallDisk, spoil: Spoil, tmp_path: Path, broker: FleetBroker
) -> None:
    async with agent_process(broker, within=disk.path, log_file=tmp_path / "agent.log") as agent:
        await eventually(lambda: agent.xrays() and '"connected to the broker"' in agent.log(), within_s=20)
        [xray] = agent.xrays()
        if spoil[0] is SmallDisk.make_read_only:  # Xray's own log would forbid the remount
            await agent.end(signal.SIGINT)
        else:
            await agent.end(signal.SIGTERM)
        left = agent.xrays()
        spoil[0](disk)
        command = [script("xfleet-agent"), "run", "--state-dir", str(agent.state_dir)]
        assert was_refused(await run(command), agent.state_dir, spoil[1])
        assert agent.xrays() == left
        if left:
            assert left == [xray]
            disk.empty()
            await agent.start()
            await eventually(lambda: '"xray adopted"' in agent.log(), within_s=20)
