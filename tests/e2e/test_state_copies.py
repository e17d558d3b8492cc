"""A copied and a rolled-back agent state directory: nothing is lost, nothing doubles, and it is reported."""

import asyncio
import os
import shlex
import shutil
import signal
from pathlib import Path

import pytest

from harness.broker import eventually
from harness.fleet import QUICK, Fleet, fleet_up, kill_hard, xray_pids
from harness.process import running, script
from harness.real import is_missing
from harness.xray import Sink, XrayClient, free_port, transfer
from xfleet_xraykit.launcher import _wheel_command

pytestmark = [pytest.mark.real_xray, pytest.mark.real_broker, pytest.mark.timeout(240)]
MB = 1_000_000


async def client_and_link(fleet: Fleet) -> tuple[dict[str, int], str]:
    await fleet.prepare_for_loopback()
    client = await fleet.add_client("ada", await fleet.add_ws_inbound(free_port()))
    return client, (await fleet.subscription(client))[0]


async def stop_agent_hard(fleet: Fleet) -> None:
    """Holds the agent still so that `xfleet up` does not start it again while its directory is exchanged."""
    os.kill(fleet.pid_of("agent"), signal.SIGSTOP)


def copy_state(source: Path, target: Path) -> None:
    """As a backup tool copies: files one by one, sockets left out."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=lambda place, names: [n for n in names if Path(place, n).is_socket()])


def other_machines_xray(directory: Path) -> Path:
    """An Xray in a network of its own: the clone runs on another machine, to which nobody connects."""
    program = directory / "xray"
    child = shlex.join(_wheel_command("run"))
    program.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        "version) echo 'Xray 26.10.10 (elsewhere)'; exit 0 ;;\n"
        "*-test*) cat >/dev/null; exit 0 ;;\n"
        "esac\n"
        f"exec unshare --net {child}\n"
    )
    program.chmod(0o755)
    return program


async def test_a_rolled_back_state_directory_loses_and_doubles_nothing_and_is_reported(tmp_path: Path) -> None:
    async with Sink() as sink, fleet_up(tmp_path) as fleet:
        client, link = await client_and_link(fleet)
        state = fleet.data_dir / "agent"
        async with XrayClient.from_link(link, send_through="127.0.0.2") as app:
            await transfer(app, sink, MB, MB)
            await fleet.wait_counted(client["id"], sink.received_bytes, sink.sent_bytes)
            copy_state(state, tmp_path / "backup")
            await transfer(app, sink, 2 * MB, MB)
            await fleet.wait_counted(client["id"], sink.received_bytes, sink.sent_bytes)
            await stop_agent_hard(fleet)
            shutil.rmtree(state)
            copy_state(tmp_path / "backup", state)
            await fleet.kill("agent")
            await fleet.comes_back("agent")
            await transfer(app, sink, MB, 3 * MB)
            await fleet.wait_counted(client["id"], sink.received_bytes, sink.sent_bytes, within_s=60)
            await asyncio.sleep(5)
            assert await fleet.counted(client["id"]) == (sink.received_bytes, sink.sent_bytes)
        await reported(fleet, "AGENT_EVENTS", "state_rolled_back")


async def test_a_copied_state_directory_loses_and_doubles_nothing_and_is_reported(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    async with Sink() as sink, fleet_up(tmp_path) as fleet:
        client, link = await client_and_link(fleet)
        async with XrayClient.from_link(link, send_through="127.0.0.2") as app:
            await transfer(app, sink, MB, MB)
            await fleet.wait_counted(client["id"], sink.received_bytes, sink.sent_bytes)
            await transfer(app, sink, 2 * MB, MB)
            copy_state(fleet.data_dir / "agent", tmp_path / "clone")
            if os.geteuid() != 0:
                is_missing(request.config, "a network of its own for the clone's Xray needs root")
            command = [script("xfleet-agent"), "run", "--state-dir", str(tmp_path / "clone")]
            environment = {**QUICK, "XFLEET_XRAY_BINARY": str(other_machines_xray(tmp_path))}
            try:
                async with running(command, tmp_path / "clone.log", environment=environment):
                    await transfer(app, sink, MB, 3 * MB)
                    await reported(fleet, "EVENTS", "agent_cloned")
                    await transfer(app, sink, MB, MB)
            finally:
                kill_hard(*xray_pids(tmp_path / "clone"))
            await fleet.wait_counted(client["id"], sink.received_bytes, sink.sent_bytes, within_s=60)
            await asyncio.sleep(5)
            assert await fleet.counted(client["id"]) == (sink.received_bytes, sink.sent_bytes)


async def reported(fleet: Fleet, stream: str, kind: str, *, within_s: float = 30) -> None:
    """Waits until the fleet tells of it as an event."""

    async def told() -> bool:
        return any(event["type"] == kind for event in await fleet.events(stream))

    await eventually(told, within_s=within_s, every_s=0.5)
