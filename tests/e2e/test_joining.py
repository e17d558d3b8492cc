"""A machine behind NAT joins by the pasted line, without a package index, and is upgraded under load."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from harness.broker import eventually
from harness.fleet import Fleet, Paced, fleet_up
from harness.joining import (
    FarMachine,
    download_of,
    far_machine,
    install_url,
    join,
    line_for,
    mirror,
    wait_status,
    wheel_as,
)
from harness.netns import Behind, Here, behind_nat, require_namespaces
from harness.xray import Sink, XrayClient, free_port, transfer
from xfleet_contracts.commands import AgentInfo
from xfleet_contracts.installs import AGENT_UPDATE, AgentUpdate, AgentUpdating
from xfleet_controller.install.library import Library, update_for

pytestmark = [
    pytest.mark.real_xray,
    pytest.mark.real_broker,
    pytest.mark.timeout(240),
    pytest.mark.asyncio(loop_scope="module"),
]
BROKEN = "import sys\n\n\ndef main() -> None:\n    sys.exit(7)\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def behind(request: pytest.FixtureRequest) -> AsyncIterator[Behind]:
    require_namespaces(request.config)
    async with behind_nat() as behind:
        yield behind


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    async with fleet_up(tmp_path_factory.mktemp("panel"), "--public") as fleet:
        await fleet.wait_online()
        yield fleet


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def far(fleet: Fleet, behind: Behind, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FarMachine]:
    async with far_machine(tmp_path_factory.mktemp("far"), behind) as machine:
        yield await join(fleet, machine)


@pytest.fixture(scope="module")
def library(fleet: Fleet) -> Library:
    """What the panel hands out."""
    library = Library(fleet.data_dir / "install")
    library.refresh()
    return library


async def test_the_pasted_line_brings_a_machine_behind_nat_online(fleet: Fleet, far: FarMachine) -> None:
    sys.stdout.write(
        f"online {far.joined_s:.1f} s after the line was pasted; the line has {len(far.line)} characters\n"
    )
    assert len(far.line) < 4096

    async def told() -> bool:
        return (await _beat(fleet, far))["reported_address"] == far.behind.inner_address

    await eventually(told, within_s=40)
    reached = await fleet.api.post("fleet/reachability", {})
    assert reached["reachable"], reached


async def test_the_same_line_again_changes_nothing_and_a_changed_script_never_runs(far: FarMachine) -> None:
    before = (far.state_dir / "identity.json").read_bytes()
    again = await far.paste(far.line)
    assert again.code == 0, again
    assert "already enrolled" in again.out
    assert (far.state_dir / "identity.json").read_bytes() == before
    script = far.line.partition(" s=")[2][:64]
    forged = await far.paste(far.line.replace(f" s={script}", f" s={script[::-1]}"))
    assert forged.code != 0
    assert "xfleet:" not in forged.out


async def test_an_upgrade_drops_no_connection(fleet: Fleet, far: FarMachine, library: Library, tmp_path: Path) -> None:
    port = free_port()
    await far.behind.forward(port)
    change = {"public_address": far.behind.router_address, "allow_private_destinations": True}
    await fleet.api.patch(f"servers/{far.server_id}", change, wait=20)
    inbound = {
        "server_id": far.server_id, "remark": "far", "port": port, "protocol": "vless", "settings": {},
        "stream_settings": {"network": "ws", "wsSettings": {"path": "/far"}}, "enabled": True,
    }  # fmt: skip
    made = await fleet.api.post("inbounds", inbound, wait=20)
    client = await fleet.add_client("traveller", made)
    link = (await fleet.subscription(client))[0]
    async with (
        Sink(far.behind.host_address) as sink, XrayClient.from_link(link) as app, fleet.commander() as commander
    ):  # fmt: skip
        moving = await Paced.start(app, sink, up_bytes=2_000_000, down_bytes=4_000_000, seconds=60)
        info = await commander.request("far", "info", {}, AgentInfo)
        order = await update_for(library, install_url(fleet, far), python=info.python_version, machine=info.arch)
        assert library.wheel is not None
        newer = wheel_as(library.wheel.path, "9.0.1", tmp_path)
        with mirror(tmp_path, far.behind.host_address) as base:
            order = AgentUpdate(version="9.0.1", wheel=download_of(newer, base), wheelhouse=order.wheelhouse)
            done = await commander.request("far", AGENT_UPDATE, order, AgentUpdating, timeout_s=100)
        assert done == AgentUpdating(version="9.0.1", previous=library.version)
        await _runs(fleet, far, "9.0.1")
        assert moving.running, "the transfer ended before the upgrade did"
        moving.hurry()
        up, down = await moving.finish()
        await fleet.wait_counted(client["id"], up, down)
    assert far.release == "9.0.1"
    assert not (far.prefix / "update.json").exists()
    told = [event for event in await fleet.events("AGENT_EVENTS") if event["type"] == "agent_updated"]
    assert told[0]["details"] == {"version": "9.0.1", "previous": library.version}


async def test_a_release_that_does_not_start_gives_way_to_the_one_before(
    fleet: Fleet, far: FarMachine, library: Library, tmp_path: Path
) -> None:
    assert library.wheel is not None
    before, instance = far.release, (await _beat(fleet, far))["agent_version"]
    xrays = _xrays(far)
    bad = wheel_as(library.wheel.path, "9.0.2", tmp_path, instead={"xfleet_agent/main.py": BROKEN})
    with mirror(tmp_path, far.behind.host_address) as base:
        async with fleet.commander() as commander:
            order = AgentUpdate(version="9.0.2", wheel=download_of(bad, base), probation_s=20)
            await commander.request("far", AGENT_UPDATE, order, AgentUpdating, timeout_s=100)

    async def told() -> bool:
        return any(event["type"] == "agent_update_failed" for event in await fleet.events("AGENT_EVENTS"))

    await eventually(told, within_s=60, every_s=0.5)
    await _runs(fleet, far, instance)
    assert far.release == before
    assert _xrays(far) == xrays
    failed = next(each for each in await fleet.events("AGENT_EVENTS") if each["type"] == "agent_update_failed")
    assert failed["details"]["version"] == "9.0.2"
    assert "3 times" in failed["details"]["reason"]


async def test_three_servers_acknowledge_one_client_and_every_byte_of_all_is_counted(
    fleet: Fleet, far: FarMachine, behind: Behind, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with far_machine(tmp_path_factory.mktemp("near"), Here(**vars(behind))) as near:
        await join(fleet, near, "near")
        addresses = {1: "127.0.0.1", near.server_id: "127.0.0.1", far.server_id: behind.router_address}
        inbounds = []
        for server_id, address in addresses.items():
            change = {"public_address": address, "allow_private_destinations": True}
            await fleet.api.patch(f"servers/{server_id}", change, wait=20)
            port = free_port()
            if server_id == far.server_id:
                await behind.forward(port)
            inbound = {
                "server_id": server_id, "remark": f"all {server_id}", "port": port, "protocol": "vless",
                "stream_settings": {"network": "ws", "wsSettings": {"path": "/all"}},
            }  # fmt: skip
            inbounds.append(await fleet.api.post("inbounds", inbound, wait=20))
        client = await fleet.add_client("everywhere", *inbounds)
        assert [task["status"] for task in client["tasks"]] == ["completed"] * 3
        assert {task["server_id"] for task in client["tasks"]} == set(addresses)
        up = down = 0
        async with Sink(behind.host_address) as sink:
            for link in await fleet.subscription(client):
                async with XrayClient.from_link(link) as app:
                    sent, got = await transfer(app, sink, 50_000, 200_000)
                    up, down = up + sent, down + got
        assert down == 600_000
        await fleet.wait_counted(client["id"], up, down)


async def test_uninstalling_stops_everything_and_leaves_nothing(fleet: Fleet, far: FarMachine) -> None:
    assert far.launcher is not None
    removed = await far.paste(await line_for(fleet, far), f"{far.options} --uninstall --purge")
    assert removed.code == 0, removed
    assert await asyncio.wait_for(far.launcher.wait(), 20) in {0, -signal.SIGINT}
    assert not far.prefix.exists()
    assert not far.state_dir.exists()
    assert _xrays(far) == []


def _xrays(far: FarMachine) -> list[int]:
    from harness.fleet import xray_pids

    return xray_pids(far.state_dir)


async def _beat(fleet: Fleet, far: FarMachine) -> dict[str, str]:
    return await fleet.api.get(f"servers/{far.server_id}")


async def _runs(fleet: Fleet, far: FarMachine, version: str) -> None:
    """Waits until the panel shows the server online with this release."""

    async def shown() -> bool:
        server = await _beat(fleet, far)
        return bool(server["agent_version"] == version and server["status"] == "online")

    try:
        await eventually(shown, within_s=40, every_s=0.2)
    except AssertionError:
        raise AssertionError(f"{version} does not run\n{far.said()}") from None
    await wait_status(fleet, far, "online")
