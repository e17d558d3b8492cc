"""A server that nobody reaches serves, counts and enforces limits alone, also after a reboot, and catches up."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from harness.broker import eventually
from harness.fleet import QUICK, Fleet, answers, fleet_up, kill_hard, xray_pids
from harness.process import Running, running, script
from harness.xray import Sink, XrayClient, free_port, passes, transfer

pytestmark = [pytest.mark.real_xray, pytest.mark.real_broker, pytest.mark.timeout(180)]
MB = 1_000_000
BOOT_WITHIN_S = 5.0


@asynccontextmanager
async def lonely_agent(data_dir: Path, log: Path) -> AsyncIterator[Running]:
    """The agent alone: no broker, no controller."""
    command = [script("xfleet-agent"), "run", "--state-dir", str(data_dir / "agent")]
    try:
        async with running(command, log, environment=QUICK) as agent:
            yield agent
    except BaseException:
        kill_hard(*xray_pids(data_dir / "agent"))
        raise


def everything_dies(fleet: Fleet) -> None:
    """A power cut: nothing gets a chance to say goodbye, Xray included."""
    parts = (fleet.pid_of(part) for part in ("agent", "controller", "broker"))
    kill_hard(fleet.up.pid, *parts, *fleet.xray_pids())


async def test_an_agent_alone_serves_after_a_reboot_enforces_expiry_and_catches_up(tmp_path: Path) -> None:
    async with Sink() as sink:
        async with fleet_up(tmp_path) as fleet:
            await fleet.prepare_for_loopback()
            inbound = await fleet.add_ws_inbound(free_port())
            expires_at = datetime.now(UTC) + timedelta(seconds=25)
            steady = await fleet.add_client("steady", inbound)
            expiring = await fleet.add_client("expiring", inbound, expires_at=expires_at.isoformat())
            links = [(await fleet.subscription(client))[0] for client in (steady, expiring)]
            assert len(fleet.xray_pids()) == 1
            everything_dies(fleet)
            await fleet.up.child.wait()

        async with (
            XrayClient.from_link(links[0], send_through="127.0.0.2") as app,
            XrayClient.from_link(links[1], send_through="127.0.0.3") as soon_cut,
        ):
            started = time.monotonic()
            async with lonely_agent(fleet.data_dir, tmp_path / "lonely.log"):
                await eventually(lambda: answers(app, sink), within_s=BOOT_WITHIN_S + 5, every_s=0.05)
                assert time.monotonic() - started < BOOT_WITHIN_S
                alone_up, alone_down = await transfer(app, sink, 2 * MB, 3 * MB)
                assert await passes(soon_cut, sink)
                await asyncio.sleep(max(0.0, (expires_at - datetime.now(UTC)).total_seconds()))
                await eventually(lambda: _is_cut(soon_cut, sink), within_s=15)
                assert await passes(app, sink)

            probes = sink.streams_count
            async with fleet_up(tmp_path) as again:
                assert "(resumed)" in again.up.said()
                await again.wait_online()
                await eventually(lambda: _counted_at_least(again, steady["id"], alone_up, alone_down), within_s=30)
                both = [await again.counted(client["id"]) for client in (steady, expiring)]
                assert probes == sink.streams_count
                assert sum(up for up, _ in both) == sink.received_bytes
                assert sum(down for _, down in both) == sink.sent_bytes


async def _is_cut(app: XrayClient, sink: Sink) -> bool:
    return not await passes(app, sink, timeout_s=2)


async def _counted_at_least(fleet: Fleet, client_id: int, up: int, down: int) -> bool:
    counted = await fleet.counted(client_id)
    return counted[0] >= up and counted[1] >= down
