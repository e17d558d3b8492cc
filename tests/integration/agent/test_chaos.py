"""Agent and broker killed at random moments while bytes flow: the sum is exact and no transfer breaks."""

import asyncio
import random
import signal

from harness.agent import AgentProcess, SmallController, entities
from harness.broker import FleetBroker, eventually
from harness.xray import HEADER, Sink, XrayClient, direct_to_loopback, new_client, open_stream, ws_inbound
from xfleet_xraykit.links import share_link

ROUNDS = 6


async def test_bytes_are_exact_under_random_kills_of_agent_and_broker(
    agent: AgentProcess, controller: SmallController, broker: FleetBroker, sink: Sink
) -> None:
    dice = random.Random(7)
    inbound = ws_inbound(7001)
    client = new_client(501, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client))
    link = share_link(inbound, client, address="127.0.0.1", remark="t")
    sent = 0
    async with XrayClient.from_link(link) as app:
        stream = await open_stream(app, sink.port)
        await stream.send(HEADER.pack(1 << 40, 0))
        sent += HEADER.size

        async def flow() -> None:
            nonlocal sent
            while True:
                size = dice.randrange(1, 50_000)
                await stream.send(bytes(size))
                sent += size
                await asyncio.sleep(0.02)

        flowing = asyncio.create_task(flow())
        try:
            for number in range(ROUNDS):
                await asyncio.sleep(dice.uniform(0.2, 1.5))
                if number % 2 == 0:
                    await agent.end(signal.SIGKILL)
                    await asyncio.sleep(dice.uniform(0, 0.5))
                    await agent.start()
                else:
                    await broker.process.stop()
                    await asyncio.sleep(dice.uniform(0, 0.5))
                    await broker.restart()
            await asyncio.sleep(1)
            assert not flowing.done()
        finally:
            flowing.cancel()
            await asyncio.gather(flowing, return_exceptions=True)
        await eventually(lambda: sink.received_bytes == sent)
        await stream.close()
    await eventually(lambda: controller.ledger.of_client(501)[0] == sent, within_s=30)
    await asyncio.sleep(1)
    assert controller.ledger.of_client(501)[0] == sent
    assert not controller.ledger.gaps
