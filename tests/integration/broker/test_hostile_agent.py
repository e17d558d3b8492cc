"""Every attack of a hostile agent that was once tried, against the configuration as shipped."""

import asyncio
import json
from collections.abc import Awaitable
from contextlib import suppress

import pytest
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import StreamInfo
from nats.js.errors import APIError

from harness.broker import FleetBroker, attacker, eventually
from xfleet_contracts.commands import SIGNATURE_HEADER
from xfleet_contracts.subjects import is_own_inbox
from xfleet_runtime.broker import BrokerLink, Incoming
from xfleet_runtime.ids import new_epoch
from xfleet_runtime.keys.signing import SignatureMissing, verify_command

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real_broker]

FOREIGN_PUBLICATIONS = [
    "fleet.up.srv2.hb",
    "fleet.up.srv2.traffic",
    "fleet.up.srv1",
    "fleet.rpc.srv2.state",
    "fleet.cmd.srv1.restart",
    "fleet.cmd.srv2.restart",
    "fleet.evt.client_added",
    "fleet.ctl.clients",
    "fleet.enroll.abc",
    "_INBOX.a.srv2.x",
    "_INBOX.a.srv1.x",
    "_INBOX.c.controller.x",
    "_INBOX.b.bot.x",
    "$JS.API.STREAM.PURGE.TRAFFIC",
    "$JS.API.STREAM.DELETE.TRAFFIC",
    "$JS.API.STREAM.CREATE.MINE",
    "$JS.API.STREAM.INFO.TRAFFIC",
    "$JS.API.CONSUMER.MSG.NEXT.TRAFFIC.ledger",
    "$JS.API.DIRECT.GET.TRAFFIC",
    "$JS.ACK.TRAFFIC.ledger.1.1.1.1.0",
    "$JS.FC.TRAFFIC.x.y",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.CLAIMS.UPDATE",
    "$SYS.REQ.USER.INFO.x",
    "$SRV.PING",
    "$KV.state.srv2",
    "$O.files.C.x",
    "anything",
]
FOREIGN_SUBSCRIPTIONS = [
    ">",
    "*",
    "*.*.*.*",
    "fleet.>",
    "fleet.up.>",
    "fleet.up.*.hb",
    "fleet.up.srv1.>",
    "fleet.up.srv2.hb",
    "fleet.rpc.>",
    "fleet.cmd.>",
    "fleet.cmd.*.x",
    "fleet.cmd.srv2.>",
    "fleet.evt.>",
    "fleet.ctl.>",
    "fleet.enroll.*",
    "_INBOX.>",
    "_INBOX.a.*.>",
    "_INBOX.a.srv2.>",
    "_INBOX.c.>",
    "_INBOX.*.*.>",
    "$JS.>",
    "$JS.API.>",
    "$JS.EVENT.ADVISORY.>",
    "$SYS.>",
    "$SYS.ACCOUNT.>",
    "$SRV.>",
    "$KV.>",
]


async def test_an_agent_speaks_and_hears_as_itself(broker: FleetBroker) -> None:
    async with attacker(broker.credentials("agent", "srv1")) as agent:
        for subject in ("fleet.up.srv1.hb", "fleet.up.srv1.blob.x1", "fleet.rpc.srv1.state"):
            assert await agent.may_publish(subject), subject
        for subject in ("fleet.cmd.srv1.>", "_INBOX.a.srv1.>"):
            assert await agent.may_subscribe(subject), subject


async def test_an_agent_publishes_nothing_else(broker: FleetBroker) -> None:
    async with attacker(broker.credentials("agent", "srv1")) as agent:
        passed = [subject for subject in FOREIGN_PUBLICATIONS if await agent.may_publish(subject)]
    assert passed == []


async def test_an_agent_hears_nothing_else(broker: FleetBroker) -> None:
    async with attacker(broker.credentials("agent", "srv1")) as agent:
        passed = [subject for subject in FOREIGN_SUBSCRIPTIONS if await agent.may_subscribe(subject)]
        passed += [
            subject for subject in ("fleet.cmd.srv2.>", "fleet.rpc.>") if await agent.may_subscribe(subject, "q")
        ]
    assert passed == []


async def test_names_that_look_alike_do_not_share_subjects(broker: FleetBroker) -> None:
    async with attacker(broker.credentials("agent", "srv")) as agent:
        assert not await agent.may_publish("fleet.up.srv1.hb")
        assert not await agent.may_publish("fleet.up.srv-1.hb")
        assert not await agent.may_subscribe("_INBOX.a.srv1.>")


async def test_a_reply_subject_cannot_make_the_controller_delete_a_stream(broker: FleetBroker) -> None:
    """Even a controller that answers blindly is stopped by its role."""
    async with (
        attacker(broker.credentials("agent", "srv1")) as agent,
        attacker(broker.credentials("rpc", "controller")) as rpc,
        broker.link("ctl", "controller") as ctl,
    ):
        await ctl.wait_connected(5)
        answered = asyncio.Event()

        async def answer_blindly(message: Msg) -> None:
            await message.respond(b"")
            answered.set()

        await rpc.client.subscribe("fleet.rpc.>", cb=answer_blindly)
        await rpc.settle()
        for reply in ("$JS.API.STREAM.DELETE.TRAFFIC", "$JS.API.STREAM.PURGE.TRAFFIC", "fleet.cmd.srv2.restart"):
            answered.clear()
            rpc.errors.clear()
            await agent.client.publish("fleet.rpc.srv1.state", b"{}", reply=reply)
            await asyncio.wait_for(answered.wait(), 5)
            await rpc.settle()
            assert "permissions violation" in rpc.errors[-1]
        assert (await ctl.js.stream_info("TRAFFIC")).config.name == "TRAFFIC"


async def test_the_link_answers_only_into_the_inbox_of_the_sender(broker: FleetBroker) -> None:
    async with broker.link("rpc", "controller") as rpc, broker.link("agent", "srv1") as agent:
        await rpc.wait_connected(5)
        await agent.wait_connected(5)
        outcomes = []

        async def answer(message: Incoming) -> None:
            outcomes.append(await rpc.respond(message, b"ok", within="_INBOX.a.srv1"))

        await rpc.subscribe("fleet.rpc.>", answer)
        for reply in ("fleet.cmd.srv2.x", "_INBOX.a.srv2.x", "_INBOX.a.srv1", "_INBOX.a.srv10.x"):
            await agent.publish("fleet.rpc.srv1.state", b"", reply=reply)
            assert not is_own_inbox(reply, "srv1")
        assert (await agent.request("fleet.rpc.srv1.state", b"", timeout_s=5)).payload == b"ok"
        assert outcomes == [False, False, False, False, True]


async def test_the_streams_own_acknowledgement_purges_and_deletes_nothing(broker: FleetBroker) -> None:
    async with attacker(broker.credentials("agent", "srv1")) as agent, broker.link("ctl", "controller") as ctl:
        await ctl.wait_connected(5)
        before = (await ctl.js.stream_info("TRAFFIC")).state.messages
        replies = [
            "$JS.API.STREAM.PURGE.TRAFFIC",
            "$JS.API.STREAM.DELETE.TRAFFIC",
            "$JS.API.STREAM.MSG.DELETE.TRAFFIC",
            "$JS.API.STREAM.UPDATE.TRAFFIC",
            "$JS.API.CONSUMER.DELETE.TRAFFIC.ledger",
            "$JS.API.CONSUMER.PAUSE.TRAFFIC.ledger",
        ]
        for reply in replies:
            await agent.client.publish("fleet.up.srv1.traffic", b"batch", reply=reply)
        await agent.settle()
        info = await eventually(lambda: _grown(ctl, before + len(replies)))
        assert info.state.messages == before + len(replies)
        assert (await ctl.js.consumer_info("TRAFFIC", "ledger")).paused in {None, False}


async def _grown(ctl: BrokerLink, messages: int) -> StreamInfo | None:
    info = await ctl.js.stream_info("TRAFFIC")
    return info if info.state.messages >= messages else None


async def test_an_acknowledgement_sent_to_another_server_is_no_command(broker: FleetBroker) -> None:
    async with attacker(broker.credentials("agent", "srv1")) as agent, broker.link("agent", "srv2") as victim:
        await victim.wait_connected(5)
        heard: asyncio.Queue[Incoming] = asyncio.Queue()
        await victim.subscribe("fleet.cmd.srv2.>", heard.put)
        await agent.client.publish("fleet.up.srv1.traffic", b"batch", reply="fleet.cmd.srv2.restart")
        message = await asyncio.wait_for(heard.get(), 5)
        assert "seq" in json.loads(message.payload)
        with pytest.raises(SignatureMissing):
            verify_command({}, message.headers.get(SIGNATURE_HEADER), message.subject, message.payload)


@pytest.mark.parametrize("reply", ["$JS.ACK.TRAFFIC.ledger.1.1.1.1.0", "_R_.x", "fleet.up.srv2.*", "fleet.up.>"])
async def test_replies_the_broker_itself_reserves_are_refused(broker: FleetBroker, reply: str) -> None:
    async with attacker(broker.credentials("agent", "srv1"), skip_subject_validation=True) as agent:
        said = await agent.said_to(_quietly(agent.client.publish("fleet.up.srv1.hb", b"", reply=reply)))
        refused = "violation" in said or "invalid" in said or agent.client.is_closed
        delivered = reply.startswith("fleet.up.")
    assert refused or delivered


async def _quietly(deed: Awaitable[object]) -> None:
    with suppress(NatsError):
        await deed


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Nats-Rollup", "all"),
        ("Nats-TTL", "1s"),
        ("Nats-Schedule", "@every 1s"),
        ("Nats-Incr", "+5"),
        ("Nats-Batch-Id", "b1"),
        ("Nats-Marker-Reason", "MaxAge"),
    ],
)
async def test_headers_that_could_change_a_stream_are_refused_or_mean_nothing(
    broker: FleetBroker, header: str, value: str
) -> None:
    headers = {header: value, "Nats-Schedule-Target": "fleet.cmd.srv2.x"} if "Schedule" in header else {header: value}
    if header == "Nats-Batch-Id":
        headers |= {"Nats-Batch-Sequence": "1"}
    async with broker.link("agent", "srv1") as agent, broker.link("ctl", "controller") as ctl:
        await agent.wait_connected(5)
        await ctl.wait_connected(5)
        before = await ctl.js.stream_info("TRAFFIC")
        answer = await agent.request("fleet.up.srv1.traffic", b"batch", timeout_s=5, headers=headers)
        after = await ctl.js.stream_info("TRAFFIC")
        if "error" not in json.loads(answer.payload):
            assert after.state.messages == before.state.messages + 1
        assert after.state.first_seq == before.state.first_seq or before.state.messages == 0


async def test_a_known_message_id_would_silence_another_server_so_epochs_cannot_be_guessed(
    broker: FleetBroker,
) -> None:
    """Deduplication is stream-wide: what protects is 96 random bits nobody else ever sees."""
    async with broker.link("agent", "srv1") as attacking, broker.link("agent", "srv2") as victim:
        await attacking.wait_connected(5)
        await victim.wait_connected(5)
        epoch = new_epoch()
        await attacking.publish_stored("fleet.up.srv1.traffic", b"x", message_id=f"{epoch}:1:d")
        assert (await victim.publish_stored("fleet.up.srv2.traffic", b"x", message_id=f"{epoch}:1:d")).duplicate
        assert not (
            await victim.publish_stored("fleet.up.srv2.traffic", b"x", message_id=f"{new_epoch()}:1:d")
        ).duplicate
        assert len(bytes.fromhex(epoch)) * 8 >= 96


async def test_line_breaks_cannot_smuggle_a_second_message(broker: FleetBroker) -> None:
    async with attacker(broker.credentials("agent", "srv1")) as agent:
        for subject in ("fleet.up.srv1.hb\r\nPUB fleet.cmd.srv2.x 0\r\n", "fleet.up.srv1.hb 0\r\n\r\nPING", "a b"):
            with pytest.raises(NatsError):
                await agent.client.publish(subject, b"")


async def test_an_oversize_message_ends_the_connection(broker: FleetBroker) -> None:
    async with attacker(broker.credentials("agent", "srv1")) as agent, broker.link("ctl", "controller") as ctl:
        await ctl.wait_connected(5)
        heard: list[Incoming] = []

        async def on_beat(message: Incoming) -> None:
            heard.append(message)

        await ctl.subscribe("fleet.up.srv1.hb", on_beat)
        await agent.client.publish("fleet.up.srv1.hb", bytes(300 * 1024))
        await asyncio.wait_for(agent.closed.wait(), 5)
        await ctl.flush()
        assert heard == []


async def test_too_many_subscriptions_are_refused(broker: FleetBroker) -> None:
    async with attacker(broker.credentials("agent", "srv1")) as agent:
        for number in range(70):
            await _quietly(agent.client.subscribe(f"fleet.cmd.srv1.x{number}"))
        await eventually(lambda: agent.closed.is_set() or agent.errors)
        assert "subscriptions exceeded" in f"{agent.errors} {agent.client.last_error}".lower()


async def test_a_full_subject_refuses_one_agent_and_leaves_the_others_alone(broker: FleetBroker) -> None:
    async with (
        broker.link("agent", "flood") as flooder,
        broker.link("agent", "calm") as calm,
        broker.link("ctl", "controller") as ctl,
    ):
        for link in (flooder, calm, ctl):
            await link.wait_connected(5)
        limit = (await ctl.js.stream_info("TRAFFIC")).config.max_msgs_per_subject
        answers = await asyncio.gather(
            *(flooder.request("fleet.up.flood.traffic", b"x", timeout_s=10) for _ in range(limit + 5))
        )
        refused = [answer for answer in answers if "error" in json.loads(answer.payload)]
        assert len(refused) == 5
        assert (await calm.publish_stored("fleet.up.calm.traffic", b"x", message_id="calm:1")).seq > 0


async def test_nobody_purges_or_deletes_from_the_streams(broker: FleetBroker) -> None:
    async with broker.link("ctl", "controller") as ctl:
        await ctl.wait_connected(5)
        with pytest.raises(APIError):
            await ctl.js.purge_stream("TRAFFIC")
        with pytest.raises(APIError):
            await ctl.js.delete_msg("TRAFFIC", 1)
