"""Wanted state: differences and snapshots, refusals of single entities, drift of the base."""

import asyncio
import socket

import msgspec
import pytest

from harness.agent import AgentProcess, SmallController, entities
from harness.broker import eventually
from harness.xray import Sink, XrayClient, direct_to_loopback, free_port, new_client, passes, ws_inbound
from xfleet_contracts import codec
from xfleet_contracts.apply import APPLY, ApplyOrder
from xfleet_contracts.desired_state import ClientBody, Difference, InboundBody, difference_of
from xfleet_contracts.errors import RemoteRefusal
from xfleet_xraykit.links import share_link


def link_of(inbound: InboundBody, client: ClientBody) -> str:
    return share_link(inbound, client, address="127.0.0.1", remark="t")


async def test_a_snapshot_replaces_everything_and_is_checked_by_digest(
    agent: AgentProcess, controller: SmallController, sink: Sink
) -> None:
    first, second = ws_inbound(7001), ws_inbound(7002)
    clients = [new_client(501, first), new_client(502, second)]
    await controller.apply(entities(direct_to_loopback(), first, clients[0]))
    report = await controller.apply_snapshot(entities(direct_to_loopback(), second, clients[1]), revision=40)
    assert report.applied_revision == 40
    async with XrayClient.from_link(link_of(second, clients[1])) as app:
        assert await passes(app, sink)
    async with XrayClient.from_link(link_of(first, clients[0])) as app:
        assert not await passes(app, sink, timeout_s=1)


async def test_a_snapshot_whose_parts_a_hostile_broker_forges_changes_nothing_and_comes_again(
    agent: AgentProcess, controller: SmallController
) -> None:
    await controller.apply(entities(direct_to_loopback()))
    before, wanted = controller.point, entities(direct_to_loopback(), ws_inbound(7001))
    controller.forging = True
    with pytest.raises(RemoteRefusal) as refused:
        await controller.apply_snapshot(wanted, revision=40)
    assert refused.value.remote_code == "state_unreachable"
    beat = await controller.heard()
    assert (beat.wanted_revision, beat.wanted_digest) == (before.revision, before.digest)
    assert "Traceback" not in agent.log()
    controller.forging = False
    assert (await controller.apply_snapshot(wanted, revision=40)).applied_revision == 40


async def test_a_difference_from_a_wrong_base_is_answered_with_the_agents_own_point(
    agent: AgentProcess, controller: SmallController
) -> None:
    await controller.apply(entities(direct_to_loopback()))
    wrong = difference_of({}, entities(ws_inbound(7001)), base_revision=7, target_revision=8)
    with pytest.raises(RemoteRefusal) as refused:
        await controller.order(APPLY, msgspec.Raw, ApplyOrder(difference=wrong))
    assert refused.value.remote_code == "base_mismatch"
    assert refused.value.details == {"revision": 1, "digest": controller.point.digest}


async def test_a_difference_that_does_not_add_up_changes_nothing(
    agent: AgentProcess, controller: SmallController
) -> None:
    right = difference_of({}, entities(ws_inbound(7001)), base_revision=0, target_revision=1)
    torn = msgspec.structs.replace(right, put=())
    with pytest.raises(RemoteRefusal) as refused:
        await controller.order(APPLY, msgspec.Raw, ApplyOrder(difference=torn))
    assert refused.value.remote_code == "digest_mismatch"
    assert (await controller.heard()).wanted_revision == 0


async def test_a_refused_change_keeps_the_last_good_version_and_everything_else_applies(
    agent: AgentProcess, controller: SmallController, sink: Sink
) -> None:
    inbound, other = ws_inbound(7001), ws_inbound(7002)
    client, late = new_client(501, inbound), new_client(502, other)
    await controller.apply(entities(direct_to_loopback(), inbound, client))
    async with XrayClient.from_link(link_of(inbound, client)) as app:
        broken = msgspec.structs.replace(
            inbound, stream_settings={"network": "ws", "security": "reality", "realitySettings": {"target": "x"}}
        )
        report = await controller.apply(entities(direct_to_loopback(), broken, client, other, late))
        [degraded] = report.degraded
        assert (degraded.key.kind, degraded.key.id, degraded.kept) == ("inbound", "7001", "previous")
        assert degraded.reason
        assert await passes(app, sink)
        async with XrayClient.from_link(link_of(other, late)) as late_app:
            assert await passes(late_app, sink)
        assert (await controller.heard()).degraded_count == 1
        mended = msgspec.structs.replace(inbound, sniffing={"enabled": True, "destOverride": ["http"]})
        report = await controller.apply(entities(direct_to_loopback(), mended, client, other, late))
        assert report.degraded == ()
        assert await passes(app, sink)


async def test_a_busy_port_is_named_in_xrays_own_words_and_the_old_port_goes_on(
    agent: AgentProcess, controller: SmallController, sink: Sink
) -> None:
    inbound = ws_inbound(7001)
    client = new_client(501, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client))
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        moved = msgspec.structs.replace(inbound, port=holder.getsockname()[1])
        report = await controller.apply(entities(direct_to_loopback(), moved, client))
    [degraded] = report.degraded
    assert (degraded.code, degraded.path, degraded.kept) == ("port_busy", "port", "previous")
    assert "address already in use" in degraded.reason
    async with XrayClient.from_link(link_of(inbound, client)) as app:
        assert await passes(app, sink)


async def test_a_client_with_a_taken_credential_is_refused_alone(
    agent: AgentProcess, controller: SmallController, sink: Sink
) -> None:
    inbound = ws_inbound(7001)
    client = new_client(501, inbound)
    twin = ClientBody(client=502, inbound=7001, uuid=client.uuid)
    report = await controller.apply(entities(direct_to_loopback(), inbound, client, twin))
    [degraded] = report.degraded
    assert (degraded.key.id, degraded.code) == ("502.7001", "duplicate_credential")
    async with XrayClient.from_link(link_of(inbound, client)) as app:
        assert await passes(app, sink)


async def test_a_removed_client_gets_no_new_stream_and_its_neighbour_goes_on(
    agent: AgentProcess, controller: SmallController, sink: Sink
) -> None:
    inbound = ws_inbound(7001)
    client, neighbour = new_client(501, inbound), new_client(502, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client, neighbour))
    async with (
        XrayClient.from_link(link_of(inbound, client), mux=True) as app,
        XrayClient.from_link(link_of(inbound, neighbour)) as next_door,
    ):
        assert await passes(app, sink)
        await controller.apply(entities(direct_to_loopback(), inbound, neighbour))
        assert not await passes(app, sink, timeout_s=1)
        assert await passes(next_door, sink)
        await controller.apply(entities(direct_to_loopback(), inbound, client, neighbour))
        await eventually(lambda: passes(app, sink, timeout_s=2))


async def test_a_thousand_changes_rebuild_the_inbound_at_once(
    agent: AgentProcess, controller: SmallController, sink: Sink
) -> None:
    inbound = ws_inbound(7001)
    client = new_client(501, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client))
    crowd = [new_client(1000 + number, inbound) for number in range(1100)]
    report = await controller.apply_snapshot(entities(direct_to_loopback(), inbound, client, *crowd), revision=2)
    assert (report.steps_count, report.degraded) == (2, ())
    async with XrayClient.from_link(link_of(inbound, crowd[-1])) as app:
        assert await passes(app, sink)


async def test_xray_may_be_stopped_started_and_restarted_by_order(
    agent: AgentProcess, controller: SmallController, sink: Sink
) -> None:
    inbound = ws_inbound(7001)
    client = new_client(501, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client))
    async with XrayClient.from_link(link_of(inbound, client)) as app:
        assert await passes(app, sink)
        assert (await controller.ask("xray.stop")).ok
        assert agent.xrays() == []
        assert not await passes(app, sink, timeout_s=1)
        refused = await controller.ask(APPLY, ApplyOrder(difference=_more(controller)))
        assert refused.error is not None
        assert refused.error.code == "xray_stopped"
        assert (await controller.ask("xray.start")).ok
        await eventually(lambda: passes(app, sink))
        [before] = agent.xrays()
        assert (await controller.ask("xray.restart")).ok
        await eventually(lambda: passes(app, sink))
        await eventually(lambda: [x.start_id for x in agent.xrays()] not in ([], [before.start_id]))
    await eventually(lambda: controller.ledger.of_client(501) == (sink.received_bytes, sink.sent_bytes))
    assert not controller.ledger.gaps


def _more(controller: SmallController) -> Difference:
    new = controller.state | entities(ws_inbound(7009, port=free_port()))
    return difference_of(controller.state, new, base_revision=controller.point.revision, target_revision=99)


async def test_every_reading_verb_answers(agent: AgentProcess, controller: SmallController) -> None:
    inbound = ws_inbound(7001)
    client = new_client(501, inbound)
    await controller.apply(entities(direct_to_loopback(), inbound, client))
    for verb in ("info", "health", "xray.version", "xray.config", "traffic.read", "clients.online", "system.stats"):
        reply = await controller.ask(verb)
        assert reply.ok, (verb, reply.error)
    shown = (await controller.ask("xray.config")).data
    assert client.uuid.encode() not in bytes(shown)
    info = codec.decode(bytes((await controller.ask("info")).data), dict)
    assert info["xray_version"]
    await asyncio.sleep(0)
