"""Hand edits on the box and Xrays nobody brought in line: found, mended, and nobody else's connection drops."""

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from harness.agent import AgentProcess, SmallController, agent_process, entities, find_xrays
from harness.broker import FleetBroker, eventually, running_broker
from harness.xray import (
    HEADER,
    Sink,
    Stream,
    XrayClient,
    direct_to_loopback,
    free_port,
    new_client,
    open_stream,
    passes,
    ws_inbound,
)
from xfleet_agent.app import assemble
from xfleet_agent.database import Worker
from xfleet_agent.identity import find_identity
from xfleet_agent.parts import Parts
from xfleet_agent.settings import AgentSettings
from xfleet_contracts import codec
from xfleet_contracts.desired_state import ClientBody, EntityKey, InboundBody, RuleBody, StatePoint
from xfleet_xraykit.api import XrayApi
from xfleet_xraykit.convert import ScratchConverter
from xfleet_xraykit.errors import XrayRefused
from xfleet_xraykit.launcher import WheelLauncher
from xfleet_xraykit.links import share_link
from xfleet_xraykit.process import stop
from xfleet_xraykit.render import render_inbound


def link_of(inbound: InboundBody, client: ClientBody) -> str:
    return share_link(inbound, client, address="127.0.0.1", remark="t")


@asynccontextmanager
async def live(client: XrayClient, sink: Sink) -> AsyncIterator[Stream]:
    """A stream that goes on for as long as it is wanted."""
    stream = await open_stream(client, sink.port)
    try:
        await stream.send(HEADER.pack(1 << 40, 0))
        yield stream
    finally:
        await stream.close()


async def flows(stream: Stream, sink: Sink) -> None:
    """What is sent on a stream that stood before still arrives."""
    before = sink.received_bytes
    await stream.send(bytes(1000))
    await eventually(lambda: sink.received_bytes >= before + 1000)


@pytest.fixture
async def agent(broker: FleetBroker, controller: SmallController) -> AsyncIterator[AgentProcess]:
    async with agent_process(broker, drift_interval_s="0.5") as running:
        await controller.heard()
        yield running


async def test_hand_edits_are_mended_and_nobody_elses_connection_drops(
    agent: AgentProcess, controller: SmallController, sink: Sink
) -> None:
    edited, other = ws_inbound(7001), ws_inbound(7002)
    victim, same_port, neighbour = new_client(501, edited), new_client(502, edited), new_client(503, other)
    await controller.apply(entities(direct_to_loopback(), edited, other, victim, same_port, neighbour))
    [xray] = agent.xrays()
    api = XrayApi(xray.api_socket, converter=ScratchConverter(WheelLauncher()))
    async with (
        XrayClient.from_link(link_of(edited, same_port)) as first,
        XrayClient.from_link(link_of(other, neighbour)) as second,
        live(first, sink) as inside,
        live(second, sink) as beside,
    ):
        await flows(inside, sink)
        await flows(beside, sink)
        await api.remove_user("in-7002", "503.7002")
        await eventually(lambda: _moved_by_hand(api, edited, victim))
        await eventually(lambda: len(controller.told("drift_patched")) >= 1)
        await eventually(lambda: _user_is_back(api))
        async with XrayClient.from_link(link_of(edited, victim)) as app:
            assert await passes(app, sink)
        await flows(inside, sink)
        await flows(beside, sink)
    told = len(controller.told("drift_patched"))
    await asyncio.sleep(1.6)
    assert len(controller.told("drift_patched")) == told  # and it is at rest again
    assert [each.start_id for each in agent.xrays()] == [xray.start_id]
    await api.close()


async def _moved_by_hand(api: XrayApi, inbound: InboundBody, client: ClientBody) -> bool:
    """Puts the inbound on another port; False when the agent was quicker and put it back in between."""
    config = render_inbound(inbound, {f"{client.client}.{inbound.ref}": client}) | {"port": free_port()}
    await api.remove_inbound(f"in-{inbound.ref}")
    try:
        await api.add_inbound(config)
    except XrayRefused:
        return False
    return True


async def _user_is_back(api: XrayApi) -> bool:
    return await api.find_user("in-7002", "503.7002") is not None


async def test_an_inbound_edited_while_no_agent_ran_is_put_right_by_the_next(
    agent: AgentProcess, controller: SmallController, sink: Sink
) -> None:
    inbound = ws_inbound(7001)
    client = new_client(501, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client))
    await agent.end(signal.SIGKILL)
    [xray] = agent.xrays()
    api = XrayApi(xray.api_socket, converter=ScratchConverter(WheelLauncher()))
    assert await _moved_by_hand(api, inbound, client)
    await api.close()
    await agent.start()
    await eventually(lambda: controller.told("drift_patched"), within_s=20)
    async with XrayClient.from_link(link_of(inbound, client)) as app:
        assert await passes(app, sink)


# An agent that is killed between the start of its Xray and its first convergence


@asynccontextmanager
async def assembled(broker: FleetBroker, state_dir: Path) -> AsyncIterator[Parts]:
    """An agent's parts without its loops, left as a killed agent leaves them: its Xray runs on."""
    settings = AgentSettings(state_dir=state_dir)
    worker = Worker()
    identity = find_identity(state_dir)
    assert identity is not None
    parts = assemble(settings, identity, worker)
    try:
        yield parts
    finally:
        if parts.driver.current is not None:
            await parts.driver.current.api.close()
        parts.store.close()
        parts.spool.close()
        worker.close()


def rule(port: int) -> tuple[EntityKey, bytes]:
    body = RuleBody(rule={"ruleTag": "r1", "port": str(port), "outboundTag": "direct"})
    return EntityKey(kind="rule", id="r1"), codec.canonical(body)


def changed(bodies: Mapping[EntityKey, bytes], *more: tuple[EntityKey, bytes]) -> dict[EntityKey, bytes]:
    return {**bodies, **dict(more)}


async def test_a_survivor_that_never_converged_is_not_believed(tmp_path: Path) -> None:
    old, new = ws_inbound(7001), ws_inbound(7001)
    client, late = new_client(501, old), new_client(502, old)
    good = changed(entities(direct_to_loopback(), old, client), rule(1))
    wanted = changed(entities(direct_to_loopback(), new, late), rule(2))
    state_dir = tmp_path / "state"
    state_dir.mkdir(mode=0o700)
    async with running_broker(tmp_path, streams=True) as broker:
        (state_dir / "identity.json").write_bytes(codec.canonical(broker.agent_identity("srv1")))
        try:
            async with assembled(broker, state_dir) as parts:
                store = parts.store
                store.save_wanted(StatePoint(revision=2, digest="d" * 64), wanted)
                store.save_applied(StatePoint(revision=2, digest="d" * 64), wanted)
                store.save_good({key: body for key, body in good.items() if key.kind != "client"})
                await parts.driver.boot()  # from `good`, as after a reboot; and it is killed before it converges
            [first] = find_xrays(state_dir)
            async with assembled(broker, state_dir) as parts:
                await parts.driver.boot()
                assert not await _listens(new.port)
                await parts.applier.converge()
                assert parts.driver.current is not None
                assert await _listens(new.port)
                users = await parts.driver.current.api.inbound_users("in-7001")
                assert set(users) == {"502.7001"}
                second = parts.driver.current.start_id
                assert second != first.start_id
            async with assembled(broker, state_dir) as parts:  # from now on it is believed
                await parts.driver.boot()
                assert (await parts.applier.converge()).steps_count == 0
                assert parts.driver.current is not None
                assert parts.driver.current.start_id == second
        finally:
            for xray in find_xrays(state_dir):
                await stop(xray)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
