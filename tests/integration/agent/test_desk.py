"""The command desk on the bus: only what a controller signed for this agent, now, once."""

import asyncio

from harness.agent import AgentProcess, SmallController
from xfleet_contracts import codec, subjects
from xfleet_contracts.commands import SIGNATURE_HEADER, Reply
from xfleet_runtime.ids import new_id
from xfleet_runtime.keys.signing import SigningKey, sign_command


async def say(controller: SmallController, subject: str, payload: bytes, headers: dict[str, str]) -> Reply:
    answer = await controller.ctl.request(subject, payload, timeout_s=10, headers=headers)
    return codec.decode(answer.payload, Reply)


def code_of(reply: Reply) -> str:
    assert not reply.ok
    assert reply.error is not None
    return reply.error.code


async def test_unsigned_foreign_moved_and_altered_commands_are_refused(
    agent: AgentProcess, controller: SmallController
) -> None:
    subject, payload, headers = controller.signed("info", {})
    assert code_of(await say(controller, subject, payload, {})) == "signature_missing"
    stranger = {SIGNATURE_HEADER: sign_command(SigningKey.generate(), subject, payload)}
    assert code_of(await say(controller, subject, payload, stranger)) == "signature_key_unknown"
    assert code_of(await say(controller, subject, payload + b" ", headers)) == "signature_wrong"
    elsewhere = subjects.command(controller.sid, "xray.stop")
    assert code_of(await say(controller, elsewhere, payload, headers)) == "signature_wrong"
    for overrides in ({"sid": "srv2"}, {"verb": "health"}):
        subject, payload, headers = controller.signed("info", {}, **overrides)
        assert code_of(await say(controller, subject, payload, headers)) == "misaddressed"
    subject, payload, headers = controller.signed("no.such", {})
    assert code_of(await say(controller, subject, payload, headers)) == "unknown_verb"
    stats = codec.decode(bytes((await controller.ask("system.stats")).data), dict)
    assert stats["commands_refused"]["signature_wrong"] == 2


async def test_a_wrong_instance_and_a_late_command_are_told_the_right_values(
    agent: AgentProcess, controller: SmallController
) -> None:
    reply = await controller.ask("info", instance="somebody-else")
    assert code_of(reply) == "instance"
    assert reply.error is not None
    assert reply.error.details == {"instance": controller.beats[-1].instance}
    await controller.ask("info")
    subject, payload, headers = controller.signed("info", {}, issued_at_ms=1, expires_at_ms=2)
    reply = await say(controller, subject, payload, headers)
    assert code_of(reply) == "clock"
    assert reply.error is not None
    assert reply.error.details["now_ms"] > 1_600_000_000_000


async def test_the_same_id_is_carried_out_once_and_never_for_another_body(
    agent: AgentProcess, controller: SmallController
) -> None:
    command_id = new_id()
    together = await asyncio.gather(*(controller.ask("xray.restart", id=command_id) for _ in range(3)))
    assert all(reply.ok for reply in together)
    starts = {bytes(reply.data) for reply in together}
    again = await controller.ask("xray.restart", id=command_id)
    assert {bytes(again.data)} == starts
    assert code_of(await controller.ask("xray.stop", id=command_id)) == "reused_id"
    assert code_of(await controller.ask("xray.restart", {"other": 1}, id=command_id)) == "reused_id"


async def test_malformed_bodies_and_floods_harm_nobody(agent: AgentProcess, controller: SmallController) -> None:
    assert code_of(await controller.ask("state.apply", {"difference": 5})) == "malformed"
    subject, payload, headers = controller.signed("receipt", {"epoch": 7}, instance="")
    for _ in range(50):
        await controller.ctl.publish(subject, payload, headers=headers)
    assert (await controller.ask("health")).ok
    stats = codec.decode(bytes((await controller.ask("system.stats")).data), dict)
    assert stats["commands_refused"]["malformed"] >= 50


async def test_answers_go_to_controllers_and_nowhere_else(agent: AgentProcess, controller: SmallController) -> None:
    subject, payload, headers = controller.signed("xray.restart", {})
    await controller.heard()
    before = controller.beats[-1].xray.start_id
    for reply in (
        subjects.traffic(controller.sid),
        "_INBOX.a.other.x",
        "_INBOX.c.*.x",
        "$JS.API.STREAM.DELETE.TRAFFIC",
    ):
        await controller.ctl.publish(subject, payload, headers=headers, reply=reply)
    stats = codec.decode(bytes((await controller.ask("system.stats")).data), dict)
    assert stats["commands_refused"]["foreign_inbox"] >= 3
    assert (await controller.heard()).xray.start_id == before
