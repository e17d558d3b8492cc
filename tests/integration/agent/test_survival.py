"""What the agent survives, and what survives the agent."""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from harness.agent import AgentProcess, SmallController, entities
from harness.broker import FleetBroker, eventually
from harness.xray import (
    HEADER,
    Sink,
    Stream,
    XrayClient,
    direct_to_loopback,
    new_client,
    open_stream,
    passes,
    transfer,
    ws_inbound,
)
from xfleet_contracts.desired_state import ClientBody, InboundBody, SettingsBody
from xfleet_nats.jetstream import ensure_streams
from xfleet_xraykit.links import share_link

CLIENT = 501


@asynccontextmanager
async def app_of(inbound: InboundBody, client: ClientBody) -> AsyncIterator[XrayClient]:
    link = share_link(inbound, client, address="127.0.0.1", remark="t")
    async with XrayClient.from_link(link, send_through="127.0.0.2") as app:
        yield app


async def long_stream(app: XrayClient, sink: Sink, up_bytes: int) -> Stream:
    """An open stream that will have sent so many bytes, none of them yet."""
    stream = await open_stream(app, sink.port)
    await stream.send(HEADER.pack(up_bytes, 5))
    assert await stream.receive(5) == bytes(5)
    return stream


async def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def counted(controller: SmallController, up: int, down: int, client: int = CLIENT, within_s: float = 15) -> None:
    try:
        await eventually(lambda: controller.ledger.of_client(client) == (up, down), within_s=within_s)
    except AssertionError:
        raise AssertionError(f"{controller.ledger.of_client(client)} is not {(up, down)}") from None


async def test_a_killed_agent_adopts_xray_again_and_the_running_transfer_never_notices(
    agent: AgentProcess, controller: SmallController, sink: Sink
) -> None:
    inbound = ws_inbound(7001)
    client = new_client(CLIENT, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client))
    async with app_of(inbound, client) as app:
        stream = await long_stream(app, sink, 300_000)
        await stream.send(bytes(100_000))
        await counted(controller, 100_016, 5)
        [before] = agent.xrays()
        await agent.end(signal.SIGKILL)
        await stream.send(bytes(100_000))
        await eventually(lambda: sink.received_bytes == 200_016)
        await agent.start()
        await stream.send(bytes(100_000))
        await counted(controller, 300_016, 5)
        [after] = agent.xrays()
        assert after == before
        await stream.close()
    await eventually(lambda: controller.told("xray_adopted"))
    assert not controller.ledger.gaps


async def test_a_terminated_agent_leaves_xray_serving(
    agent: AgentProcess, controller: SmallController, sink: Sink
) -> None:
    inbound = ws_inbound(7001)
    client = new_client(CLIENT, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client))
    assert await agent.end(signal.SIGTERM) == 0
    async with app_of(inbound, client) as app:
        assert await passes(app, sink)
    await agent.start()
    await counted(controller, 26, 10)


async def test_an_interrupted_agent_stops_xray_in_order_and_delivers_the_last_byte(
    agent: AgentProcess, controller: SmallController, sink: Sink
) -> None:
    inbound = ws_inbound(7001)
    client = new_client(CLIENT, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client))
    async with app_of(inbound, client) as app:
        sent, got = await transfer(app, sink)
        assert await agent.end(signal.SIGINT) == 0
    assert agent.xrays() == []
    assert controller.ledger.of_client(CLIENT) == (sent, got)
    assert not controller.ledger.gaps


async def test_a_crashed_xray_is_started_again_and_the_unknown_time_is_declared(
    agent: AgentProcess, controller: SmallController, sink: Sink
) -> None:
    inbound = ws_inbound(7001)
    client = new_client(CLIENT, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client))
    async with app_of(inbound, client) as app:
        assert await passes(app, sink)
        await counted(controller, 26, 10)
        [xray] = agent.xrays()
        os.kill(xray.pid, signal.SIGKILL)
        await eventually(lambda: passes(app, sink), within_s=15)
        await counted(controller, 52, 20)
    [gap] = controller.ledger.gaps
    assert gap.reason == "xray_died"
    assert gap.start_id == xray.start_id
    assert await eventually(lambda: controller.told("xray_crashed"))
    assert controller.beats[-1].xray.restarts_count == 1


async def test_a_lonely_agent_boots_xray_from_disk_within_five_seconds(
    agent: AgentProcess, controller: SmallController, broker: FleetBroker, sink: Sink
) -> None:
    inbound = ws_inbound(7001)
    client = new_client(CLIENT, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client))
    await agent.end(signal.SIGKILL)
    for xray in agent.xrays():
        os.kill(xray.pid, signal.SIGKILL)
    await broker.process.stop()
    async with app_of(inbound, client) as app:
        started = time.monotonic()
        await agent.start()
        await eventually(lambda: listens(inbound.port), within_s=5)
        assert time.monotonic() - started < 5
        assert await passes(app, sink)
    await broker.restart()
    await counted(controller, 26, 10, within_s=30)


async def test_bytes_survive_a_broker_whose_store_was_wiped(
    agent: AgentProcess, controller: SmallController, broker: FleetBroker, sink: Sink
) -> None:
    inbound = ws_inbound(7001)
    client = new_client(CLIENT, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client))
    async with app_of(inbound, client) as app:
        sent, got = await transfer(app, sink, 500_000, 500_000)
        await broker.process.stop()
        shutil.rmtree(broker.settings.store_directory)
        await broker.restart()
        await controller.ctl.wait_connected(15)
        await ensure_streams(controller.ctl.js)
        more_sent, more_got = await transfer(app, sink, 500_000, 500_000)
    await counted(controller, sent + more_sent, got + more_got, within_s=40)


async def test_adding_a_client_and_handing_over_to_a_new_xray_interrupt_nobody(
    agent: AgentProcess, controller: SmallController, sink: Sink
) -> None:
    inbound = ws_inbound(7001)
    client, other = new_client(CLIENT, inbound), new_client(502, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client))
    async with app_of(inbound, client) as app, app_of(inbound, other) as other_app:
        stream = await long_stream(app, sink, 300_000)
        await stream.send(bytes(100_000))
        report = await controller.apply(entities(direct_to_loopback(), inbound, client, other))
        assert (report.steps_count, report.restarted) == (1, False)
        assert await passes(other_app, sink)
        await stream.send(bytes(100_000))
        settings = SettingsBody(log_level="info")
        report = await controller.apply(entities(direct_to_loopback(), inbound, client, other, settings))
        assert report.restarted
        assert report.degraded == ()
        assert len(agent.xrays()) == 2
        assert await passes(other_app, sink)
        await stream.send(bytes(100_000))
        await eventually(lambda: sink.received_bytes == 300_016 + 52)
        await stream.close()
        await eventually(lambda: len(agent.xrays()) == 1, within_s=20)
    await counted(controller, 300_016, 5)
    await counted(controller, 52, 20, client=502)
    assert not controller.ledger.gaps


async def test_a_user_removed_by_hand_is_put_back(broker: FleetBroker, controller: SmallController, sink: Sink) -> None:
    from harness.agent import agent_process
    from xfleet_xraykit.api import XrayApi

    inbound = ws_inbound(7001)
    client = new_client(CLIENT, inbound)
    async with agent_process(broker, drift_interval_s="0.5") as agent:
        await controller.heard()
        await controller.apply(entities(direct_to_loopback(), inbound, client))
        [xray] = agent.xrays()
        api = XrayApi(xray.api_socket)
        await api.remove_user("in-7001", f"{CLIENT}.7001")
        await eventually(lambda: controller.told("drift_patched"))
        assert await api.find_user("in-7001", f"{CLIENT}.7001") is not None
        await api.close()


async def test_two_agents_on_one_directory_are_refused_with_one_line(agent: AgentProcess) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "xfleet_agent.main", "run", "--state-dir", str(agent.state_dir),
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert "already runs" in errors.decode()
    assert len(errors.decode().splitlines()) == 1
