"""A state directory that was copied or restored, with real parts: nothing is lost or doubled, and it is told."""

import asyncio
import shutil
import signal
from pathlib import Path

from harness.agent import AgentProcess, SmallController, entities, find_xrays
from harness.broker import eventually
from harness.xray import HEADER, Sink, XrayClient, direct_to_loopback, new_client, open_stream, transfer, ws_inbound
from xfleet_agent.app import run_directory
from xfleet_xraykit.links import share_link
from xfleet_xraykit.process import stop


async def test_a_rolled_back_state_directory_loses_and_doubles_nothing_and_is_told(
    agent: AgentProcess, controller: SmallController, sink: Sink, tmp_path: Path
) -> None:
    inbound = ws_inbound(7001)
    client = new_client(501, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client))
    link = share_link(inbound, client, address="127.0.0.1", remark="t")
    async with XrayClient.from_link(link) as app:
        first = await transfer(app, sink, 300_000, 100_000)
        await eventually(lambda: controller.ledger.of_client(501) == first)
        await agent.end(signal.SIGKILL)
        shutil.copytree(agent.state_dir, tmp_path / "backup")
        await agent.start()
        stream = await open_stream(app, sink.port)
        await stream.send(HEADER.pack(200_000, 0) + bytes(100_000))
        await eventually(lambda: controller.ledger.of_client(501)[0] == first[0] + 100_016)
        await agent.end(signal.SIGKILL)
        shutil.rmtree(agent.state_dir)
        shutil.copytree(tmp_path / "backup", agent.state_dir)
        await stream.send(bytes(100_000))
        await agent.start()
        await eventually(lambda: controller.ledger.of_client(501) == (first[0] + 200_016, first[1]))
        await stream.close()
        more = await transfer(app, sink, 50_000, 50_000)
    expected = (first[0] + 200_016 + more[0], first[1] + more[1])
    await eventually(lambda: controller.ledger.of_client(501) == expected)
    await eventually(lambda: controller.told("state_rolled_back"))
    assert not controller.ledger.gaps


async def test_a_copied_state_directory_loses_and_doubles_nothing_and_is_told(
    agent: AgentProcess, controller: SmallController, sink: Sink, tmp_path: Path
) -> None:
    inbound = ws_inbound(7001)
    client = new_client(501, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client))
    link = share_link(inbound, client, address="127.0.0.1", remark="t")
    async with XrayClient.from_link(link) as app:
        sent, got = await transfer(app, sink, 300_000, 100_000)
        await agent.end(signal.SIGKILL)
        copy = AgentProcess(tmp_path / "copy" / "state")
        shutil.copytree(agent.state_dir, copy.state_dir)
        await copy.start()
        await eventually(lambda: len(find_xrays(copy.state_dir)) == 1)
        await copy.end(signal.SIGINT)
        for each in find_xrays(copy.state_dir):  # it shares our ports: what it took, we would not count
            await stop(each)
        await agent.start()
        more_sent, more_got = await transfer(app, sink, 300_000, 100_000)
    shutil.rmtree(run_directory(copy.state_dir), ignore_errors=True)
    expected = (sent + more_sent, got + more_got)
    await eventually(lambda: controller.ledger.of_client(501) == expected, within_s=45)
    await asyncio.sleep(1)
    assert controller.ledger.of_client(501) == expected
