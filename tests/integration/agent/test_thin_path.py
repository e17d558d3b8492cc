"""From a wanted state to a byte in the ledger, with everything real but the controller."""

from harness.agent import AgentProcess, SmallController, entities
from harness.broker import eventually
from harness.xray import Sink, XrayClient, direct_to_loopback, new_client, transfer, ws_inbound
from xfleet_xraykit.links import share_link


async def test_a_client_is_applied_and_its_bytes_reach_the_ledger_exactly(
    agent: AgentProcess, controller: SmallController, sink: Sink
) -> None:
    inbound = ws_inbound(7001)
    client = new_client(501, inbound)
    report = await controller.apply(entities(direct_to_loopback(), inbound, client))
    assert report.degraded == ()
    assert report.applied_revision == 1
    link = share_link(inbound, client, address="127.0.0.1", remark="t")
    async with XrayClient.from_link(link, send_through="127.0.0.2") as app:
        sent, got = await transfer(app, sink)
    await eventually(lambda: controller.ledger.of_client(501) == (sent, got))
    beat = await eventually(lambda: next((b for b in reversed(controller.beats) if b.applied_revision == 1), None))
    assert beat.xray.status == "running"
    assert beat.applied_digest == controller.point.digest
