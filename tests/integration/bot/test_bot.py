"""The bot between a real broker and a Bot API of our own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from harness.broker import FleetBroker, running_broker
from harness.fake_telegram import TOKEN, FakeTelegram, fake_telegram
from harness.process import Running, run, running, script
from xfleet_contracts import control, subjects
from xfleet_contracts.codec import decode, encode
from xfleet_contracts.commands import Reply
from xfleet_contracts.control import (
    Actor,
    ActorRequest,
    BindRequest,
    BotCodeWrong,
    FleetStatus,
    NotBound,
    ServerLine,
)
from xfleet_contracts.errors import Refusal
from xfleet_runtime.broker import BrokerLink, Incoming

ADA, EVE = 7001, 7002
pytestmark = pytest.mark.real_broker


@dataclass
class ControllerTwin:
    """Answers `fleet.ctl.*` as the controller does, from memory."""

    link: BrokerLink
    bound: dict[int, str] = field(default_factory=dict)
    codes: dict[str, str] = field(default_factory=lambda: {"right-code": "admin"})

    async def start(self) -> None:
        await self.link.subscribe(subjects.ALL_CONTROLS, self.on_control, queue="q")

    async def on_control(self, message: Incoming) -> None:
        try:
            reply = Reply(ok=True, data=msgspec.Raw(encode(self.answer(message))))
        except Refusal as refusal:
            reply = Reply(ok=False, error=refusal.body())
        await self.link.respond(message, encode(reply), within="_INBOX.b")

    def answer(self, message: Incoming) -> Actor | FleetStatus:
        method = message.subject.rpartition(".")[2]
        if method == control.BIND:
            asked = decode(message.payload, BindRequest)
            admin = self.codes.pop(asked.code, None)
            if admin is None:
                raise BotCodeWrong
            self.bound[asked.telegram_id] = admin
            return Actor(admin=admin, role="owner")
        who = decode(message.payload, ActorRequest).telegram_id
        if who not in self.bound:
            raise NotBound
        if method == control.WHOAMI:
            return Actor(admin=self.bound[who], role="owner")
        line = ServerLine(slug="local", name="<local>", status="online", xray="26.10.10", clients_online_count=3)
        return FleetStatus(servers=(line,), clients_count=12, clients_online_count=3, up_bytes=2048, down_bytes=5)


@dataclass
class Stage:
    """Everything a test of the bot needs."""

    telegram: FakeTelegram
    broker: FleetBroker
    controller: ControllerTwin
    bot: Running


@asynccontextmanager
async def bot_on_stage(directory: Path) -> AsyncIterator[Stage]:
    async with running_broker(directory) as broker, fake_telegram() as telegram:
        credentials = directory / "bot.json"
        credentials.write_bytes(msgspec.json.encode(broker.credentials("bot", "bot")))
        command = [script("xfleet-bot"), "run", "--credentials-file", str(credentials), "--api-base", telegram.base]
        async with (
            broker.link("svc", "c1") as link,
            running(command, directory / "bot.log", environment={"XFLEET_BOT_TOKEN": TOKEN}) as bot,
        ):
            await link.wait_connected(10)
            controller = ControllerTwin(link)
            await controller.start()
            await telegram.wait_for_call(lambda method: method == "getUpdates", within_s=40)
            yield Stage(telegram, broker, controller, bot)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with bot_on_stage(tmp_path) as stage:
        yield stage


async def test_an_admin_binds_with_a_code_and_reads_the_status(stage: Stage) -> None:
    telegram = stage.telegram
    assert "not bound" in await telegram.asks(ADA, "/start")
    assert "not bound" in await telegram.asks(ADA, "/status")
    assert "not valid" in await telegram.asks(ADA, "/start wrong-code")
    assert "<b>admin</b>" in await telegram.asks(ADA, "/start right-code")
    status = await telegram.asks(ADA, "/status")
    assert "&lt;local&gt;" in status
    assert "3 online" in status
    assert "↑ 2.0 KiB" in status
    assert "You are <b>admin</b>" in await telegram.asks(ADA, "/start")


async def test_a_code_alone_binds_too_and_only_once(stage: Stage) -> None:
    assert "<b>admin</b>" in await stage.telegram.asks(ADA, "right-code")
    assert "not valid" in await stage.telegram.asks(EVE, "right-code")
    assert stage.controller.bound == {ADA: "admin"}


async def test_a_group_is_not_answered(stage: Stage) -> None:
    await stage.telegram.says(ADA, "/start right-code", chat=-55, chat_type="group")
    assert "not bound" in await stage.telegram.asks(ADA, "/start")
    assert stage.telegram.sent(-55) == []


async def test_a_flood_is_answered_in_part_and_others_go_on(stage: Stage) -> None:
    for _ in range(30):
        await stage.telegram.says(EVE, "/help")
    assert "/status" in await stage.telegram.asks(ADA, "/help")
    assert len(stage.telegram.sent(EVE)) < 10


async def test_a_broker_that_is_gone_is_said_and_its_return_noticed(stage: Stage) -> None:
    await stage.telegram.asks(ADA, "/start right-code")
    await stage.broker.process.stop()
    assert "cannot reach the panel" in await stage.telegram.asks(ADA, "/status", within_s=20)
    await stage.broker.restart()
    await stage.controller.link.wait_connected(20)
    for _ in range(20):
        answer = await stage.telegram.asks(ADA + 1, "/start", within_s=20)
        if "not bound" in answer:
            break
    assert "not bound" in answer


async def test_telegram_failing_and_flood_control_are_waited_out(stage: Stage) -> None:
    stage.telegram.fail_next = [
        (502, {"ok": False, "error_code": 502, "description": "Bad Gateway"}),
        (429, {"ok": False, "error_code": 429, "description": "slow", "parameters": {"retry_after": 1}}),
    ]
    await stage.telegram.wait_for_call(lambda _: not stage.telegram.fail_next)
    assert "/status" in await stage.telegram.asks(ADA, "/help", within_s=20)


async def test_a_refused_token_ends_with_one_clear_line(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as broker, fake_telegram() as telegram:
        credentials = tmp_path / "bot.json"
        credentials.write_bytes(msgspec.json.encode(broker.credentials("bot", "bot")))
        command = [script("xfleet-bot"), "run", "--credentials-file", str(credentials), "--api-base", telegram.base]
        outcome = await run(command, environment={"XFLEET_BOT_TOKEN": "4242:BBwrongtokenBBwrongtokenBBwrongtoken"})
    assert outcome.code == 2
    assert "Telegram refuses the bot token" in outcome.error_lines[-1]
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("content", "environment", "says"),
    [
        (None, {"XFLEET_BOT_TOKEN": TOKEN}, "Cannot read the bus credentials"),
        (b"{", {"XFLEET_BOT_TOKEN": TOKEN}, "are broken"),
        (b"{", {"XFLEET_BOT_TOKN": TOKEN}, "Unknown setting XFLEET_BOT_TOKN"),
    ],
)
async def test_bad_input_is_one_clear_line(
    tmp_path: Path, content: bytes | None, environment: dict[str, str], says: str
) -> None:
    file = tmp_path / "bot.json"
    if content is not None:
        file.write_bytes(content)
    command = [script("xfleet-bot"), "run", "--credentials-file", str(file)]
    outcome = await run(command, environment=environment)
    assert outcome.code == 2
    assert len(outcome.error_lines) == 1
    assert says in outcome.err
