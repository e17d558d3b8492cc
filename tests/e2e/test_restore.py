"""A lost machine: backup, wipe, restore in an empty directory. Agents return, the ledger is exact or shows its gap."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.backups import PASSPHRASE, back_up, restore, restore_command
from harness.fleet import Fleet, fleet_up
from harness.process import run, script
from harness.xray import Sink, XrayClient, free_port, transfer

pytestmark = [pytest.mark.real_xray, pytest.mark.real_broker, pytest.mark.timeout(240)]
MB = 1_000_000


async def edits_go_on(fleet: Fleet, inbound: dict[str, Any], name: str) -> dict[str, Any]:
    """A client added now is applied by the agent."""
    before = (await fleet.wait_online())["applied_revision"]
    client = await fleet.add_client(name, inbound)
    assert (await fleet.wait_online())["applied_revision"] > before
    return client


async def well(fleet: Fleet, archive: Path) -> str:
    """The doctor finds nothing wrong with a running fleet; a password is set anew while it runs."""
    looked = await run([script("xfleet"), "doctor", "--data-dir", str(fleet.data_dir), "--json"])
    found = {each["check"]: each for each in json.loads(looked.out)}
    assert looked.code == 0, looked.out
    assert {"broker", "streams", "clock", "lag", "panel", "ports", "database", "integrity"} <= found.keys()
    reset = await run([script("xfleet"), "admin", "reset-password", "admin", "--data-dir", str(fleet.data_dir)])
    assert reset.code == 0, reset.err
    password = reset.out.split()[-1]
    await fleet.api.sign_in(password)
    refused = await restore_command(archive, fleet.data_dir, "--force")
    assert refused.code == 2
    assert "already runs" in refused.err
    return password


async def test_after_a_restore_agents_return_bytes_are_exact_or_a_gap_is_shown_and_edits_go_on(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "elsewhere"))
    first.mkdir()
    async with Sink() as sink:
        async with fleet_up(first) as fleet:
            await fleet.prepare_for_loopback()
            inbound = await fleet.add_ws_inbound(free_port())
            ada = await fleet.add_client("ada", inbound)
            link = (await fleet.subscription(ada))[0]
            async with XrayClient.from_link(link, send_through="127.0.0.2") as app:
                await transfer(app, sink, MB, MB)
                await fleet.wait_counted(ada["id"], sink.received_bytes, sink.sent_bytes)
                archive = await back_up(fleet.data_dir, tmp_path / "fleet.xfb")
                await transfer(app, sink, MB, 2 * MB)
                await edits_go_on(fleet, inbound, "eve")
                await fleet.api.patch(f"clients/{ada['id']}", {"comment": "later"}, wait=20)
                ahead = await fleet.wait_online()
                await fleet.wait_counted(ada["id"], sink.received_bytes, sink.sent_bytes)

        # The controller's disk is lost, the server with its agent is not.
        shutil.copytree(first / "data" / "agent", second / "data" / "agent", ignore=shutil.ignore_patterns("*.sock"))
        shutil.rmtree(first)
        await restore(archive, second / "data")
        async with fleet_up(second) as fleet:
            server = await fleet.wait_online()
            assert server["applied_revision"] >= ahead["applied_revision"]
            await fleet.wait_counted(ada["id"], sink.received_bytes, sink.sent_bytes, within_s=60)
            assert (await fleet.api.get(f"clients/{ada['id']}"))["comment"] == ""
            async with XrayClient.from_link(link, send_through="127.0.0.2") as app:
                await transfer(app, sink, MB, MB)
            bob = await edits_go_on(fleet, inbound, "bob")
            await fleet.wait_counted(ada["id"], sink.received_bytes, sink.sent_bytes)
            at_backup = sink.received_bytes, sink.sent_bytes
            password = await well(fleet, archive)
            made = await fleet.api.post("backups", {"passphrase": PASSPHRASE})
            shutil.copy(fleet.data_dir / "backups" / made["name"], archive)
            async with XrayClient.from_link((await fleet.subscription(bob))[0], send_through="127.0.0.2") as app:
                await transfer(app, sink, MB, MB)
            await fleet.wait_counted(bob["id"], MB + 16, MB)

        # Now everything is lost, and comes back under another path.
        shutil.rmtree(second)
        await restore(archive, third / "data")
        async with fleet_up(third, sign_in=False) as fleet:
            await fleet.api.sign_in(password)
            await fleet.wait_online()
            assert await fleet.counted(ada["id"]) == at_backup
            assert await fleet.counted(bob["id"]) == (0, 0)
            [gap] = (await fleet.api.get("traffic/gaps"))["items"]
            assert gap["reason"] == "agent_lost"
            before = sink.received_bytes, sink.sent_bytes
            async with XrayClient.from_link(link, send_through="127.0.0.2") as app:
                await transfer(app, sink, MB, MB)
            moved = sink.received_bytes - before[0], sink.sent_bytes - before[1]
            await fleet.wait_counted(ada["id"], at_backup[0] + moved[0], at_backup[1] + moved[1])
            await edits_go_on(fleet, inbound, "cleo")
            assert "backup_restored" in {event["type"] for event in await fleet.events("EVENTS")}
