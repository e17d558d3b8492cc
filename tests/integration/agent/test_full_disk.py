"""A state directory whose disk is full: Xray serves on, changes are refused in words, every byte is counted later."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.agent import SmallController, agent_process, entities
from harness.broker import FleetBroker, eventually
from harness.disk import SmallDisk, small_disk
from harness.xray import Sink, XrayClient, direct_to_loopback, new_client, passes, transfer, ws_inbound
from xfleet_contracts.errors import RemoteRefusal
from xfleet_xraykit.links import share_link

CLIENT, OTHER = 501, 502
LOW_BYTES = 8 * 1024 * 1024


@pytest.fixture
def disk(pytestconfig: pytest.Config) -> Iterator[SmallDisk]:
    with small_disk(pytestconfig) as mounted:
        yield mounted


async def counted(controller: SmallController, sink: Sink) -> None:
    """Waits until the ledger has exactly what the far end has seen."""

    def sums() -> tuple[int, int]:
        both = [controller.ledger.of_client(each) for each in (CLIENT, OTHER)]
        return sum(up for up, _ in both), sum(down for _, down in both)

    await eventually(lambda: sums() == (sink.received_bytes, sink.sent_bytes), within_s=20)


async def test_a_full_disk_costs_no_byte_and_no_connection(
    broker: FleetBroker, controller: SmallController, sink: Sink, disk: SmallDisk, tmp_path: Path
) -> None:
    inbound = ws_inbound(7001)
    client, other = new_client(CLIENT, inbound), new_client(OTHER, inbound)
    log_file = tmp_path / "agent.log"
    async with agent_process(broker, within=disk.path, log_file=log_file, disk_low_bytes=str(LOW_BYTES)) as agent:
        await controller.heard()
        await controller.apply(entities(direct_to_loopback(), inbound, client))
        link = share_link(inbound, client, address="127.0.0.1", remark="t")
        other_link = share_link(inbound, other, address="127.0.0.1", remark="o")
        async with XrayClient.from_link(link) as app, XrayClient.from_link(other_link) as other_app:
            await transfer(app, sink, 100_000, 50_000)
            await counted(controller, sink)
            [xray] = agent.xrays()
            assert not controller.told("disk_low")

            disk.fill()
            await eventually(lambda: controller.told("disk_low"), within_s=15)
            for _ in range(3):
                await transfer(app, sink, 200_000, 100_000)
            await eventually(lambda: controller.told("spool_unwritable"), within_s=15)
            before = controller.point
            with pytest.raises(RemoteRefusal) as refused:
                await controller.apply(entities(direct_to_loopback(), inbound, client, other))
            assert refused.value.body().code == "storage"
            assert controller.point == before
            assert await passes(app, sink)
            assert not await passes(other_app, sink)
            assert agent.process is not None
            assert agent.process.returncode is None
            assert agent.xrays() == [xray]

            disk.empty()
            await counted(controller, sink)
            await eventually(lambda: controller.told("disk_ok"), within_s=15)
            report = await controller.apply(entities(direct_to_loopback(), inbound, client, other))
            assert report.degraded == ()
            assert await passes(other_app, sink)
            await counted(controller, sink)
        assert agent.xrays() == [xray]
        assert "Traceback" not in agent.log()
    assert not controller.ledger.gaps
    assert len(controller.told("disk_low")) == len(controller.told("disk_ok")) == 1
    assert len(controller.told("spool_unwritable")) == len(controller.told("spool_writable")) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=["term", "int", "kill"])
async def test_bytes_of_a_full_disk_outlive_the_agent(
    broker: FleetBroker, controller: SmallController, sink: Sink, disk: SmallDisk, number: signal.Signals
) -> None:
    inbound = ws_inbound(7001)
    client = new_client(CLIENT, inbound)
    async with agent_process(broker, within=disk.path) as agent:
        await controller.heard()
        await controller.apply(entities(direct_to_loopback(), inbound, client))
        link = share_link(inbound, client, address="127.0.0.1", remark="t")
        async with XrayClient.from_link(link) as app:
            await transfer(app, sink, 100_000, 50_000)
            await counted(controller, sink)
            disk.fill()
            await transfer(app, sink, 200_000, 100_000)
            await eventually(lambda: controller.told("spool_unwritable"), within_s=15)
            [xray] = agent.xrays()
            assert await agent.end(number) == (-number if number is signal.SIGKILL else 0)
            assert agent.xrays() == [xray], "nothing else knows what was not written down"
            assert await passes(app, sink) == (number is not signal.SIGINT)
            disk.empty()
            await agent.start()
            await counted(controller, sink)
            await eventually(lambda: passes(app, sink), within_s=15)
            await counted(controller, sink)
        assert "Traceback" not in agent.log()
    assert not controller.ledger.gaps
