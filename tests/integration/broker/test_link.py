"""The link survives what happens to connections, and says honestly what it does not know."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from harness.broker import FleetBroker, eventually, running_broker
from xfleet_contracts.errors import MessageTooLarge
from xfleet_contracts.message import MAX_MESSAGE_BYTES
from xfleet_nats.process import BrokerProcess
from xfleet_runtime.broker import (
    BrokerLink,
    Disconnected,
    Incoming,
    NoResponders,
    PublishNotStored,
    RequestTimedOut,
)
from xfleet_runtime.errors import Unusable

pytestmark = pytest.mark.real_broker


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[FleetBroker]:
    async with running_broker(tmp_path, streams=True) as running:
        yield running


async def kill(fleet: FleetBroker) -> None:
    os.kill(fleet.process.pid, signal.SIGKILL)
    await fleet.process.wait()


async def test_subscriptions_stand_again_after_a_killed_broker(fleet: FleetBroker) -> None:
    async with fleet.link("agent", "srv1") as agent, fleet.link("ctl", "controller") as ctl:
        reconnects = []

        async def on_connected() -> None:
            reconnects.append(agent.connected)

        agent.on_connected(on_connected)
        await agent.wait_connected(5)
        await ctl.wait_connected(5)

        async def answer(message: Incoming) -> None:
            await agent.respond(message, b"alive", within="_INBOX.c.controller")

        await agent.subscribe("fleet.cmd.srv1.>", answer)
        await kill(fleet)
        await eventually(lambda: not agent.connected and not ctl.connected)
        with pytest.raises(Disconnected):
            await ctl.request("fleet.cmd.srv1.info", b"", timeout_s=1)
        await fleet.restart()
        await agent.wait_connected(5)
        await ctl.wait_connected(5)
        assert (await ctl.request("fleet.cmd.srv1.info", b"", timeout_s=5)).payload == b"alive"
        await eventually(lambda: reconnects == [True, True])


async def test_a_link_started_before_its_broker_connects_when_there_is_one(fleet: FleetBroker) -> None:
    await kill(fleet)
    async with fleet.link("agent", "srv1") as agent:
        with pytest.raises(Disconnected, match=r"127\.0\.0\.1"):
            await agent.wait_connected(0.5)
        heard: asyncio.Queue[Incoming] = asyncio.Queue()
        await agent.subscribe("fleet.cmd.srv1.>", heard.put)
        await fleet.restart()
        await agent.wait_connected(5)
        async with fleet.link("ctl", "controller") as ctl:
            await ctl.wait_connected(5)
            await ctl.publish("fleet.cmd.srv1.x", b"1")
            assert (await asyncio.wait_for(heard.get(), 5)).payload == b"1"


async def test_a_command_that_needs_the_bus_says_in_one_line_that_it_cannot_reach_it(fleet: FleetBroker) -> None:
    await kill(fleet)
    async with fleet.link("cli", "root") as cli:
        with pytest.raises(
            Unusable, match=r"Cannot get onto the bus at tls://127\.0\.0\.1:\d+: .*Is it running"
        ) as caught:
            await cli.require_connected(0.3)
        assert "\n" not in str(caught.value)


async def test_a_slow_handler_costs_messages_and_not_memory(fleet: FleetBroker) -> None:
    async with fleet.link("agent", "srv1") as agent, fleet.link("ctl", "controller") as ctl:
        await agent.wait_connected(5)
        await ctl.wait_connected(5)
        go_on, heard = asyncio.Event(), []

        async def slow(message: Incoming) -> None:
            await go_on.wait()
            heard.append(message.payload)

        subscription = await ctl.subscribe("fleet.up.srv1.hb", slow, pending_max=10)
        for number in range(50):
            await agent.publish("fleet.up.srv1.hb", str(number).encode())
        await eventually(lambda: subscription.dropped_count >= 39)
        go_on.set()
        await subscription.settle()
        assert len(heard) + subscription.dropped_count == 50


async def test_a_request_in_flight_fails_at_once_when_the_broker_dies(fleet: FleetBroker) -> None:
    async with fleet.link("agent", "srv1") as agent, fleet.link("ctl", "controller") as ctl:
        await agent.wait_connected(5)
        await ctl.wait_connected(5)
        arrived = asyncio.Event()

        async def never_answer(_message: Incoming) -> None:
            arrived.set()

        await agent.subscribe("fleet.cmd.srv1.>", never_answer)
        request = asyncio.ensure_future(ctl.request("fleet.cmd.srv1.info", b"", timeout_s=60))
        await arrived.wait()
        await kill(fleet)
        with pytest.raises(Disconnected):
            await asyncio.wait_for(request, 5)


async def test_a_handler_is_not_cancelled_by_a_lost_link(fleet: FleetBroker) -> None:
    async with fleet.link("agent", "srv1") as agent, fleet.link("ctl", "controller") as ctl:
        await agent.wait_connected(5)
        await ctl.wait_connected(5)
        started, go_on, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def long_work(_message: Incoming) -> None:
            started.set()
            await go_on.wait()
            finished.set()

        await agent.subscribe("fleet.cmd.srv1.>", long_work)
        await ctl.publish("fleet.cmd.srv1.apply", b"")
        await started.wait()
        await kill(fleet)
        await eventually(lambda: not agent.connected)
        go_on.set()
        await asyncio.wait_for(finished.wait(), 5)


async def test_nobody_there_and_nobody_answers_are_told_apart(fleet: FleetBroker) -> None:
    async with fleet.link("agent", "srv1") as agent, fleet.link("ctl", "controller") as ctl:
        await agent.wait_connected(5)
        await ctl.wait_connected(5)
        with pytest.raises(NoResponders):
            await ctl.request("fleet.cmd.srv1.info", b"", timeout_s=5)

        async def ignore(_message: Incoming) -> None:
            return

        await agent.subscribe("fleet.cmd.srv1.>", ignore)
        with pytest.raises(RequestTimedOut):
            await ctl.request("fleet.cmd.srv1.info", b"", timeout_s=0.2)


async def test_a_failing_handler_loses_its_own_message_only(fleet: FleetBroker) -> None:
    async with fleet.link("agent", "srv1") as agent, fleet.link("ctl", "controller") as ctl:
        await agent.wait_connected(5)
        await ctl.wait_connected(5)
        heard: list[bytes] = []

        async def fragile(message: Incoming) -> None:
            if message.payload == b"bad":
                raise ValueError("no")
            heard.append(message.payload)

        await agent.subscribe("fleet.cmd.srv1.>", fragile)
        for payload in (b"1", b"bad", b"2"):
            await ctl.publish("fleet.cmd.srv1.x", payload)
        await eventually(lambda: heard == [b"1", b"2"])


async def test_nothing_larger_than_the_contract_allows_is_sent(fleet: FleetBroker) -> None:
    async with fleet.link("agent", "srv1") as agent:
        await agent.wait_connected(5)
        too_large = bytes(MAX_MESSAGE_BYTES + 1)
        with pytest.raises(MessageTooLarge):
            await agent.publish("fleet.up.srv1.hb", too_large)
        with pytest.raises(MessageTooLarge):
            await agent.publish_stored("fleet.up.srv1.traffic", too_large, message_id="1")
        await agent.publish("fleet.up.srv1.hb", bytes(MAX_MESSAGE_BYTES))
        await agent.flush()
        assert agent.connected


async def test_a_stored_message_is_acknowledged_once_and_then_known(fleet: FleetBroker) -> None:
    async with fleet.link("agent", "srv1") as agent:
        await agent.wait_connected(5)
        first = await agent.publish_stored("fleet.up.srv1.traffic", b"x", message_id="e:1", stream="TRAFFIC")
        again = await agent.publish_stored("fleet.up.srv1.traffic", b"x", message_id="e:1", stream="TRAFFIC")
        assert (first.duplicate, again.duplicate, again.seq) == (False, True, first.seq)
        with pytest.raises(PublishNotStored):
            await agent.publish_stored("fleet.up.srv1.traffic", b"x", message_id="e:2", stream="OTHER")


async def test_new_credentials_are_taken_over_without_a_gap(fleet: FleetBroker) -> None:
    async with fleet.link("agent", "srv1") as agent, fleet.link("ctl", "controller") as ctl:
        await agent.wait_connected(5)
        await ctl.wait_connected(5)

        async def answer(message: Incoming) -> None:
            await agent.respond(message, message.payload, within="_INBOX.c.controller")

        await agent.subscribe("fleet.cmd.srv1.>", answer, queue="q")
        answered = []

        async def keep_asking() -> None:
            for number in range(300):
                reply = await ctl.request("fleet.cmd.srv1.echo", str(number).encode(), timeout_s=5)
                answered.append(int(reply.payload))

        asking = asyncio.ensure_future(keep_asking())
        for _ in range(3):
            await agent.replace_credentials(fleet.credentials("agent", "srv1"))
        await ctl.replace_credentials(fleet.credentials("ctl", "controller"))
        await asking
        assert answered == list(range(300))
        assert agent.connected


async def test_credentials_that_do_not_work_leave_the_old_connection_alone(fleet: FleetBroker) -> None:
    async with fleet.link("agent", "srv1") as agent:
        await agent.wait_connected(5)
        old = agent.credentials
        broken = msgspec.structs.replace(fleet.credentials("agent", "srv1"), jwt=fleet.credentials("ctl", "x").jwt)
        with pytest.raises(Disconnected):
            await agent.replace_credentials(broken)
        assert agent.connected
        assert agent.credentials is old


async def test_an_expired_identity_comes_back_with_a_renewed_one(fleet: FleetBroker) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=2)
    short = fleet.issuer.bus_credentials("agent", "srv1", fleet.urls, expires_at=soon)
    async with BrokerLink(short, name="short-lived", longest_wait_s=0.5) as agent:
        await agent.wait_connected(5)
        await eventually(lambda: not agent.connected and agent.refused)
        await agent.replace_credentials(fleet.credentials("agent", "srv1"))
        await agent.wait_connected(5)
        assert not agent.refused


async def test_the_second_address_is_used_when_the_first_is_dead(fleet: FleetBroker) -> None:
    urls = ("tls://127.0.0.1:1", *fleet.urls)
    credentials = msgspec.structs.replace(fleet.credentials("agent", "srv1"), urls=urls)
    async with BrokerLink(credentials, name="two addresses") as agent:
        await agent.wait_connected(5)
        assert agent.url == fleet.urls[0]


async def test_closing_finishes_what_came_in(fleet: FleetBroker) -> None:
    done = []
    async with fleet.link("ctl", "controller") as ctl:
        await ctl.wait_connected(5)
        async with fleet.link("agent", "srv1") as agent:
            await agent.wait_connected(5)

            async def slow(message: Incoming) -> None:
                await asyncio.sleep(0.02)
                done.append(message.payload)

            await agent.subscribe("fleet.cmd.srv1.>", slow)
            for number in range(10):
                await ctl.publish("fleet.cmd.srv1.x", str(number).encode())
            await ctl.flush()
        assert len(done) == 10


async def test_an_unsubscribed_handler_hears_nothing_more(fleet: FleetBroker) -> None:
    async with fleet.link("agent", "srv1") as agent, fleet.link("ctl", "controller") as ctl:
        await agent.wait_connected(5)
        await ctl.wait_connected(5)

        async def ignore(_message: Incoming) -> None:
            return

        subscription = await agent.subscribe("fleet.cmd.srv1.>", ignore)
        await agent.unsubscribe(subscription)
        await agent.flush()
        with pytest.raises(NoResponders):
            await ctl.request("fleet.cmd.srv1.info", b"", timeout_s=5)


async def test_a_broker_s_restart_does_not_make_links_busy(fleet: FleetBroker) -> None:
    """Attempts while nobody answers grow apart instead of spinning."""
    await kill(fleet)
    attempts = 0

    async def count(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal attempts
        attempts += 1
        writer.close()
        await writer.wait_closed()

    slammed = await asyncio.start_server(count, "127.0.0.1", 0)
    port = slammed.sockets[0].getsockname()[1]
    credentials = msgspec.structs.replace(fleet.credentials("agent", "srv1"), urls=(f"tls://127.0.0.1:{port}",))
    async with BrokerLink(credentials, name="unlucky", longest_wait_s=5) as agent:
        with pytest.raises(Disconnected):
            await agent.wait_connected(2)
    slammed.close()
    await slammed.wait_closed()
    assert 1 <= attempts <= 10


async def test_a_second_broker_over_the_same_directory_ends_the_one_left_over(fleet: FleetBroker) -> None:
    left_over = fleet.process
    settings = msgspec.structs.replace(fleet.settings, port=left_over.port)
    fleet.process = BrokerProcess(settings)
    await fleet.process.start()
    assert await left_over.wait() is not None
    assert fleet.process.running
