"""Every byte is counted once: what an independent sink saw is what the API reports, whatever is killed meanwhile."""

import asyncio
import shutil

import pytest

from harness.fleet import Fleet, Paced
from harness.xray import Sink, TlsTarget, XrayClient, free_port, transfer

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real_xray, pytest.mark.real_broker]
UP, DOWN = 3_000_000, 7_000_000
SETTLED_WITHIN_S = 60
"""After a kill the broker may hold a batch for its acknowledgement time before it delivers it again."""


async def new_client(fleet: Fleet, name: str) -> tuple[dict[str, object], str]:
    """A client on a fresh WebSocket inbound, and the link that its subscription carries."""
    inbound = await fleet.add_ws_inbound(free_port(), name)
    client = await fleet.add_client(name, inbound)
    return client, (await fleet.subscription(client))[0]


async def test_a_client_configured_only_from_its_subscription_is_counted_exactly(
    fleet: Fleet, sink: Sink, target: TlsTarget
) -> None:
    inbounds = [
        await fleet.add_reality_inbound(free_port(), target.port),
        await fleet.add_ws_inbound(free_port(), "plain"),
    ]
    client = await fleet.add_client("ada", *inbounds)
    links = await fleet.subscription(client)
    assert len(links) == 2
    seen_up, seen_down = sink.received_bytes, sink.sent_bytes
    for link in links:
        async with XrayClient.from_link(link, send_through="127.0.0.2") as app:
            await transfer(app, sink, UP, DOWN)
    moved = sink.received_bytes - seen_up, sink.sent_bytes - seen_down
    assert moved == (2 * (UP + 16), 2 * DOWN)
    await fleet.wait_counted(client["id"], *moved)


@pytest.mark.parametrize("victims", [("agent",), ("broker",), ("controller",), ("agent", "broker", "controller")])
async def test_bytes_are_exact_and_the_transfer_goes_on_when_killed_in_its_middle(
    fleet: Fleet, sink: Sink, victims: tuple[str, ...]
) -> None:
    client, link = await new_client(fleet, "kill-" + "-".join(victims))
    async with XrayClient.from_link(link, send_through="127.0.0.3") as app:
        moving = await Paced.start(app, sink, up_bytes=UP, down_bytes=DOWN, seconds=8)
        await asyncio.sleep(3)
        await fleet.kill(*victims)
        assert moving.running
        moved = await moving.finish()
    for part in victims:
        await fleet.comes_back(part)
    await fleet.wait_online()
    await fleet.wait_counted(client["id"], *moved, within_s=SETTLED_WITHIN_S)


async def test_bytes_are_exact_when_the_brokers_store_is_wiped_in_the_middle(fleet: Fleet, sink: Sink) -> None:
    client, link = await new_client(fleet, "wiped")
    async with XrayClient.from_link(link, send_through="127.0.0.3") as app:
        moving = await Paced.start(app, sink, up_bytes=UP, down_bytes=DOWN, seconds=8)
        await asyncio.sleep(2)
        await fleet.kill("controller")
        await asyncio.sleep(1)
        await fleet.kill("broker")
        shutil.rmtree(fleet.data_dir / "broker" / "js")
        moved = await moving.finish()
    for part in ("broker", "controller"):
        await fleet.comes_back(part)
    await fleet.wait_online()
    await fleet.wait_counted(client["id"], *moved, within_s=SETTLED_WITHIN_S)


async def test_a_client_added_to_an_inbound_does_not_interrupt_its_neighbours(fleet: Fleet, sink: Sink) -> None:
    inbound = await fleet.add_ws_inbound(free_port(), "busy")
    first = await fleet.add_client("first", inbound)
    async with XrayClient.from_link((await fleet.subscription(first))[0], send_through="127.0.0.3") as app:
        moving = await Paced.start(app, sink, up_bytes=UP, down_bytes=DOWN, seconds=4)
        for number in range(5):
            added = await fleet.add_client(f"later-{number}", inbound)
            for task in added["task_ids"]:
                assert (await fleet.api.get(f"tasks/{task}"))["status"] == "completed"
        async with XrayClient.from_link((await fleet.subscription(added))[0]) as other:
            await transfer(other, sink, 1000, 1000)
        assert moving.running
        moved = await moving.finish()
    await fleet.wait_counted(first["id"], *moved)
    await fleet.wait_counted(added["id"], 1016, 1000)
