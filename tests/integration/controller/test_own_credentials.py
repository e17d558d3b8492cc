"""The installation's own credentials: renewed while it runs, and nobody notices."""

import asyncio
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from harness.broker import eventually
from harness.controller_fleet import running_world, small_agent
from xfleet_bot.app import follow_credentials
from xfleet_bot.settings import BotSettings
from xfleet_contracts.apply import ChunkRequest
from xfleet_nats.fleet import FleetIssuer
from xfleet_nats.render import renew_certificate
from xfleet_runtime.broker import BrokerLink, Credentials
from xfleet_runtime.clock import FakeClock, SystemClock

pytestmark = pytest.mark.real_broker


async def test_all_that_is_the_controller_s_own_is_renewed_when_due(tmp_path: Path) -> None:
    async with running_world(tmp_path / "data") as world, small_agent(world) as agent:
        controller, keys = world.controller, world.settings.data_dir / "keys"
        fleet = controller.context.fleet
        assert fleet is not None
        files = [keys / "bot-credentials.json", keys / "cli-credentials.json", world.settings.broker_dir / "server.crt"]
        links = [link.credentials for link in controller.bus.all]
        as_made = [file.read_bytes() for file in files]
        await controller.own.look()
        assert [file.read_bytes() for file in files] == as_made
        assert [link.credentials for link in controller.bus.all] == links

        aged = FleetIssuer(fleet.issuer.keys, FakeClock(SystemClock().now() - timedelta(days=40)))
        bot = msgspec.json.decode(as_made[0], type=Credentials)
        files[0].write_bytes(msgspec.json.encode(aged.bus_credentials("bot", "bot", bot.urls)))
        renew_certificate(world.settings.broker_dir, aged)
        before = files[2].read_bytes()
        await controller.own.look()
        assert files[2].read_bytes() != before
        assert msgspec.json.decode(files[0].read_bytes(), type=Credentials).issued_at >= bot.issued_at

        done = asyncio.Event()

        async def ask() -> int:
            count = 0
            while not done.is_set():
                reply = await agent.call("state", ChunkRequest(revision=1, chunk="0" * 64))
                assert reply.error is not None
                assert reply.error.code == "snapshot_gone"
                await agent.beat()
                count += 1
                await asyncio.sleep(0.06)
            return count

        asking = asyncio.ensure_future(ask())
        for _ in range(5):
            await asyncio.sleep(0.1)
            await controller.own.renew_links()
        done.set()
        assert await asking > 5
        assert not {link.credentials.seed for link in controller.bus.all} & {each.seed for each in links}
        await eventually(lambda: controller.context.presence.is_online("local"))


async def test_the_bot_moves_to_what_the_controller_wrote(tmp_path: Path) -> None:
    async with running_world(tmp_path / "data") as world:
        fleet, file = world.controller.context.fleet, tmp_path / "bot.json"
        assert fleet is not None
        first, second = (fleet.issuer.bus_credentials("bot", "bot", (world.broker.url,)) for _ in range(2))
        file.write_bytes(msgspec.json.encode(first))
        settings = BotSettings(credentials_file=file)
        async with BrokerLink(first, name="bot") as link:
            await link.wait_connected(5)
            following = asyncio.ensure_future(follow_credentials(link, settings, every_s=0.05))
            file.write_bytes(b"{")
            await asyncio.sleep(0.2)
            assert link.connected
            file.write_bytes(msgspec.json.encode(second))
            await eventually(lambda: link.credentials == second)
            assert link.connected
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
