"""Expiry and allowances, enforced by the agent alone."""

import asyncio

import msgspec

from harness.agent import AgentProcess, SmallController, entities
from harness.broker import FleetBroker, eventually
from harness.xray import (
    HEADER,
    Sink,
    XrayClient,
    direct_to_loopback,
    new_client,
    open_stream,
    passes,
    transfer,
    ws_inbound,
)
from xfleet_contracts.allowance import Allowance, Allowances
from xfleet_runtime.clock import SystemClock
from xfleet_xraykit.links import share_link

MB = 1_000_000


async def test_a_client_expires_with_broker_and_controller_gone_and_its_neighbour_goes_on(
    agent: AgentProcess, controller: SmallController, broker: FleetBroker, sink: Sink
) -> None:
    inbound = ws_inbound(7001)
    expires_at_ms = SystemClock().now_ms() + 4000
    client = msgspec.structs.replace(new_client(501, inbound), expires_at_ms=expires_at_ms)
    neighbour = new_client(502, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client, neighbour))
    link, next_link = (share_link(inbound, each, address="127.0.0.1", remark="t") for each in (client, neighbour))
    async with XrayClient.from_link(link, mux=True) as app, XrayClient.from_link(next_link) as next_door:
        assert await passes(app, sink)
        await broker.process.stop()
        await asyncio.sleep(max(0.0, (expires_at_ms - SystemClock().now_ms()) / 1000))

        async def is_out() -> bool:
            return not await passes(app, sink, timeout_s=1)

        await eventually(is_out, within_s=8)
        assert await passes(next_door, sink)
        await agent.end()
        await agent.start()
        await asyncio.sleep(1)
        assert not await passes(app, sink, timeout_s=1)
        await broker.restart()
        await controller.ctl.wait_connected(15)
        await controller.heard()
        longer = msgspec.structs.replace(client, expires_at_ms=expires_at_ms + 3_600_000)
        await controller.apply(entities(direct_to_loopback(), inbound, longer, neighbour))
        await eventually(lambda: passes(app, sink, timeout_s=2))
    lifted = await eventually(lambda: controller.told("client_cut_lifted"))
    assert [event.details["reason"] for event in lifted] == ["expired"]


async def test_a_used_up_allowance_cuts_alone_and_only_a_newer_one_lifts_it(
    agent: AgentProcess, controller: SmallController, broker: FleetBroker, sink: Sink
) -> None:
    inbound = ws_inbound(7001)
    client, neighbour = new_client(501, inbound), new_client(502, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client, neighbour))
    link, next_link = (share_link(inbound, each, address="127.0.0.1", remark="t") for each in (client, neighbour))
    async with XrayClient.from_link(link, mux=True) as app, XrayClient.from_link(next_link) as next_door:
        sent, got = await transfer(app, sink, MB, MB)
        await eventually(lambda: controller.ledger.of_client(501) == (sent, got))
        epoch, floor = next(iter(controller.ledger.floors.items()))
        await controller.allow(told(501, 3 * MB, serial=1, epoch=epoch, floor=floor))
        assert await passes(app, sink)
        await controller.ctl.flush()
        await controller.heard()
        await broker.process.stop()
        stream = await open_stream(app, sink.port)
        await stream.send(HEADER.pack(4 * MB, 0))
        await stream.send(bytes(2 * MB))
        assert await passes(app, sink), "two of three megabytes are used"
        await stream.send(bytes(2 * MB))

        async def is_out() -> bool:
            return not await passes(app, sink, timeout_s=1)

        await stream.close()
        await eventually(is_out, within_s=10)
        assert await passes(next_door, sink)
        await broker.restart()
        await controller.ctl.wait_connected(15)
        await eventually(lambda: controller.told("client_cut"), within_s=20)
        await controller.allow(told(501, 5 * MB, serial=1))
        await asyncio.sleep(1)
        assert not await passes(app, sink, timeout_s=1), "an old serial lifts nothing"
        await controller.allow(told(501, None, serial=2))
        await eventually(lambda: passes(app, sink, timeout_s=2))


def told(client: int, allowance_bytes: int | None, *, serial: int, epoch: str = "", floor: int = 0) -> Allowances:
    item = Allowance(client=client, allowance_bytes=allowance_bytes, serial=serial)
    return Allowances(as_of_epoch=epoch, as_of_floor=floor, items=(item,))
