"""What each role may and may not do, on the real broker."""

import asyncio

import pytest
from nats.aio.msg import Msg

from harness.broker import FleetBroker, attacker, eventually
from xfleet_contracts.streams import BOT_CONSUMER, EVENTS
from xfleet_nats.roles import ROLES
from xfleet_runtime.broker import Incoming

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real_broker]

COMMANDS_AND_STREAMS = (
    "fleet.cmd.srv1.restart",
    "$JS.API.STREAM.DELETE.TRAFFIC",
    "$JS.API.STREAM.PURGE.TRAFFIC",
    "$JS.API.STREAM.CREATE.X",
    "$JS.API.STREAM.MSG.GET.TRAFFIC",
    "$JS.API.CONSUMER.CREATE.TRAFFIC.spy",
    "$JS.API.CONSUMER.MSG.NEXT.TRAFFIC.ledger",
    "$JS.ACK.TRAFFIC.ledger.1.1.1.1.0",
    "$KV.x.y",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.CLAIMS.UPDATE",
    "fleet.up.srv1.hb",
    "fleet.up.srv1.traffic",
    "fleet.rpc.srv1.state",
    "fleet.enroll.token",
)
MUST_NOT_PUBLISH = {
    "rpc": (*COMMANDS_AND_STREAMS, "fleet.evt.x", "fleet.ctl.clients", "_INBOX.c.controller.x", "_INBOX.b.bot.x"),
    "svc": (*COMMANDS_AND_STREAMS, "fleet.evt.x", "fleet.ctl.clients", "_INBOX.a.srv1.x", "_INBOX.c.controller.x"),
    "bot": (
        *COMMANDS_AND_STREAMS,
        "fleet.ctl.cli.status",
        "fleet.evt.x",
        "_INBOX.a.srv1.x",
        "_INBOX.o.cli.x",
        "$JS.API.CONSUMER.MSG.NEXT.EVENTS.other",
        "$JS.API.CONSUMER.DELETE.EVENTS.bot",
        "$JS.API.STREAM.INFO.TRAFFIC",
        "$JS.ACK.EVENTS.other.1.1.1.1.0",
        "$JS.ACK.TRAFFIC.ledger.EVENTS.bot.1.1.0",
        "$JS.ACK.TRAFFIC.EVENTS.EVENTS.bot.1.1.0",
    ),
    "enroll": (*COMMANDS_AND_STREAMS[:-1], "fleet.enroll.other", "fleet.ctl.clients", "_INBOX.a.srv1.x"),
    "cli": (
        *COMMANDS_AND_STREAMS,
        "fleet.ctl.status",
        "fleet.ctl.bind",
        "fleet.ctl.cli",
        "fleet.evt.x",
        "_INBOX.a.srv1.x",
        "_INBOX.b.bot.x",
    ),
    "ops-ro": (*COMMANDS_AND_STREAMS, "fleet.evt.x", "fleet.ctl.clients", "_INBOX.a.srv1.x"),
    "ctl": (
        "_INBOX.a.srv1.x",
        "_INBOX.e.token.x",
        "_INBOX.b.bot.x",
        "fleet.up.srv1.hb",
        "fleet.up.srv1.traffic",
        "fleet.rpc.srv1.state",
        "$SYS.REQ.CLAIMS.UPDATE",
    ),
    "sys": ("fleet.cmd.srv1.x", "$JS.API.STREAM.DELETE.TRAFFIC", "$SYS.REQ.SERVER.x.RELOAD"),
}
MUST_NOT_HEAR = {
    "rpc": (">", "fleet.up.>", "fleet.up.*.traffic", "fleet.cmd.>", "fleet.evt.>", "_INBOX.a.>", "$JS.API.>"),
    "svc": (">", "fleet.up.>", "fleet.rpc.>", "fleet.cmd.>", "fleet.evt.>", "_INBOX.b.>", "$JS.API.>"),
    "bot": (">", "fleet.>", "fleet.up.*.hb", "fleet.ctl.>", "fleet.cmd.>", "_INBOX.b.>", "_INBOX.b.other.>", "$JS.>"),
    "enroll": (">", "fleet.enroll.>", "fleet.enroll.one", "_INBOX.e.>", "_INBOX.e.other.>", "fleet.evt.>"),
    "cli": (">", "fleet.ctl.>", "fleet.cmd.>", "fleet.up.*.traffic", "_INBOX.o.>", "_INBOX.o.other.>"),
    "ops-ro": (">", "fleet.ctl.>", "fleet.cmd.>", "fleet.up.*.traffic", "fleet.up.>", "_INBOX.o.>", "_INBOX.o.other.>"),
    "ctl": (">", "fleet.rpc.>", "fleet.cmd.>", "fleet.ctl.>", "fleet.enroll.>", "_INBOX.>", "_INBOX.c.other.>"),
    "sys": (">", "fleet.>", "$SYS.>", "$SYS.REQ.>"),
}


@pytest.mark.parametrize("role", sorted(MUST_NOT_PUBLISH))
async def test_a_role_publishes_only_what_is_its_own(broker: FleetBroker, role: str) -> None:
    async with attacker(broker.credentials(role, "one")) as client:
        passed = [subject for subject in MUST_NOT_PUBLISH[role] if await client.may_publish(subject)]
    assert passed == []


@pytest.mark.parametrize("role", sorted(MUST_NOT_HEAR))
async def test_a_role_hears_only_what_is_its_own(broker: FleetBroker, role: str) -> None:
    async with attacker(broker.credentials(role, "one")) as client:
        passed = [subject for subject in MUST_NOT_HEAR[role] if await client.may_subscribe(subject)]
    assert passed == []


async def test_every_role_is_in_the_tables_of_crossings() -> None:
    assert set(MUST_NOT_PUBLISH) | {"agent"} == set(ROLES)
    assert set(MUST_NOT_HEAR) | {"agent"} == set(ROLES)


async def test_whoever_answers_agents_has_no_right_to_answer_anywhere(broker: FleetBroker) -> None:
    """`resp` would let a reply subject of the asker's choice through."""
    for role in ("rpc", "svc", "ctl"):
        assert ROLES[role].template.responses_max == 0


async def test_an_agent_answers_a_command_64_times_and_not_more(broker: FleetBroker) -> None:
    async with attacker(broker.credentials("agent", "srv1")) as agent, broker.link("ctl", "controller") as ctl:
        await ctl.wait_connected(5)

        async def answer_too_often(message: Msg) -> None:
            for _ in range(70):
                await message.respond(b"x")

        await agent.client.subscribe("fleet.cmd.srv1.>", cb=answer_too_often)
        await agent.settle()
        answers = await ctl.collect("fleet.cmd.srv1.info", b"", timeout_s=1, count=70)
        assert len(answers) == 64


async def test_an_agent_answers_nobody_who_did_not_ask(broker: FleetBroker) -> None:
    async with attacker(broker.credentials("agent", "srv1")) as agent:
        assert not await agent.may_publish("_INBOX.c.controller.abc")


async def test_the_bot_takes_its_events_and_acknowledges_them(broker: FleetBroker) -> None:
    async with broker.link("ctl", "controller") as ctl, broker.link("bot", "bot") as bot:
        await ctl.wait_connected(5)
        await bot.wait_connected(5)
        await ctl.publish_stored("fleet.evt.client_added", b"{}", message_id="1")
        puller = await bot.js.pull_subscribe_bind(consumer=BOT_CONSUMER.durable, stream=EVENTS.name)
        (event,) = await puller.fetch(1, timeout=5)
        await event.ack_sync(timeout=5)
        info = await ctl.js.consumer_info(EVENTS.name, BOT_CONSUMER.durable)
        assert (info.num_pending, info.num_ack_pending) == (0, 0)


async def test_bot_and_command_line_are_answered_by_svc(broker: FleetBroker) -> None:
    async with (
        broker.link("svc", "controller") as svc,
        broker.link("bot", "bot") as bot,
        broker.link("cli", "root") as cli,
    ):
        for link in (svc, bot, cli):
            await link.wait_connected(5)

        async def answer(message: Incoming) -> None:
            within = "_INBOX.b" if message.reply.startswith("_INBOX.b.") else "_INBOX.o"
            await svc.respond(message, b"pong", within=within)

        await svc.subscribe("fleet.ctl.>", answer, queue="svc")
        assert (await bot.request("fleet.ctl.ping", b"", timeout_s=5)).payload == b"pong"
        assert (await cli.request("fleet.ctl.cli.ping", b"", timeout_s=5)).payload == b"pong"


async def test_enrollment_reaches_its_own_desk_and_is_answered_by_rpc(broker: FleetBroker) -> None:
    async with broker.link("rpc", "controller") as rpc, broker.link("enroll", "t0k3n") as newcomer:
        await rpc.wait_connected(5)
        await newcomer.wait_connected(5)

        async def answer(message: Incoming) -> None:
            await rpc.respond(message, b"welcome", within="_INBOX.e.t0k3n")

        await rpc.subscribe("fleet.enroll.*", answer, queue="desk")
        assert (await newcomer.request("fleet.enroll.t0k3n", b"{}", timeout_s=5)).payload == b"welcome"


async def test_operators_look_without_touching(broker: FleetBroker) -> None:
    async with broker.link("ops-ro", "alice") as ops, broker.link("agent", "srv1") as agent:
        await ops.wait_connected(5)
        await agent.wait_connected(5)
        names = await ops.request("$JS.API.STREAM.NAMES", b"", timeout_s=5)
        assert b"TRAFFIC" in names.payload
        beats: asyncio.Queue[Incoming] = asyncio.Queue()
        await ops.subscribe("fleet.up.*.hb", beats.put)
        await agent.publish("fleet.up.srv1.hb", b"{}")
        assert (await asyncio.wait_for(beats.get(), 5)).subject == "fleet.up.srv1.hb"
        await eventually(lambda: ops.connected)
