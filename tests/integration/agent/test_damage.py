"""Files that a bad disk or a bad hand spoiled: Xray serves on, nothing is lost silently."""

import signal
from pathlib import Path

from harness.agent import AgentProcess, SmallController, entities
from harness.broker import FleetBroker, eventually
from harness.xray import Sink, XrayClient, direct_to_loopback, new_client, transfer, ws_inbound
from xfleet_xraykit.links import share_link

CLIENT = 501


async def counted(controller: SmallController, sink: Sink) -> None:
    await eventually(lambda: controller.ledger.of_client(CLIENT) == (sink.received_bytes, sink.sent_bytes), within_s=20)


async def test_spoiled_state_and_spool_leave_xray_serving_and_every_byte_counted(
    broker: FleetBroker, agent: AgentProcess, controller: SmallController, sink: Sink
) -> None:
    inbound = ws_inbound(801)
    client = new_client(CLIENT, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client))
    link = share_link(inbound, client, address="127.0.0.1", remark="t")
    async with XrayClient.from_link(link, send_through="127.0.0.2") as app:
        await transfer(app, sink, 100_000, 5)
        await counted(controller, sink)
        await agent.end(signal.SIGKILL)
        for name in ("state.db", "spool.db"):
            for suffix in ("-wal", "-shm"):
                Path(agent.state_dir, name + suffix).unlink(missing_ok=True)
            Path(agent.state_dir, name).write_bytes(b"this is no database" * 1000)
        (xray,) = agent.xrays()
        await agent.start()
        await eventually(lambda: len(controller.told("database_replaced")) == 2, within_s=20)
        await controller.heard()
        assert [each.pid for each in agent.xrays()] == [xray.pid]
        await transfer(app, sink, 50_000, 5)
        await counted(controller, sink)
