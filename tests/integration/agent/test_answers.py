"""A hostile broker answers the agent: without the controller's signature over this very call it is not heard."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from harness.broker import FleetBroker
from xfleet_agent import calls as calls_module
from xfleet_agent.calls import AnswerUntrusted, Calls
from xfleet_contracts import codec, subjects
from xfleet_contracts.commands import SIGNATURE_HEADER, Reply
from xfleet_contracts.traffic import BatchName, LedgerAnswer, LedgerQuery
from xfleet_runtime.broker import BrokerLink, Incoming
from xfleet_runtime.keys.signing import Asked, SigningKey, sign_answer, sign_command

SID = "srv1"
QUERY = LedgerQuery(instance="i1", epoch="e1", starts=("s1",))
LIE = codec.encode(Reply(ok=True, data=msgspec.Raw(codec.canonical(LedgerAnswer(pending_count=0)))))
Headers = dict[str, str]


class Liar:
    """Stands where the broker stands: hears every call and answers as it likes."""

    def __init__(self, broker: FleetBroker, link: BrokerLink) -> None:
        self.key = broker.keys.command_key()
        self.link = link
        self.heard: list[Incoming] = []
        self.answer: Callable[[Incoming], tuple[bytes, Headers]] = self.honest

    def honest(self, message: Incoming) -> tuple[bytes, Headers]:
        return LIE, {SIGNATURE_HEADER: sign_answer(self.key, asked_by(message), LIE)}

    async def on_call(self, message: Incoming) -> None:
        self.heard.append(message)
        payload, headers = self.answer(message)
        await self.link.respond(message, payload, within=subjects.agent_inbox(SID), headers=headers)


def asked_by(message: Incoming, **other: Any) -> Asked:
    return Asked(**{"reply": message.reply, "subject": message.subject, "question": message.payload} | other)


@pytest.fixture
async def link(broker: FleetBroker) -> AsyncIterator[BrokerLink]:
    async with broker.link("agent", SID) as link:
        await link.wait_connected(10)
        yield link


@pytest.fixture
async def liar(broker: FleetBroker) -> AsyncIterator[Liar]:
    async with broker.link("rpc", "liar") as rpc:
        await rpc.wait_connected(10)
        liar = Liar(broker, rpc)
        await rpc.subscribe(subjects.ALL_AGENT_CALLS, liar.on_call)
        yield liar


@pytest.fixture
def calls(broker: FleetBroker, link: BrokerLink) -> Calls:
    key = broker.keys.command_key()
    return Calls(link, SID, lambda: {key.id: key.public})


def signed(liar: Liar, message: Incoming, **other: Any) -> Headers:
    return {SIGNATURE_HEADER: sign_answer(liar.key, asked_by(message, **other), LIE)}


FORGERIES: dict[str, Callable[[Liar, Incoming], Headers]] = {
    "unsigned": lambda _liar, _message: {},
    "garbage": lambda _liar, _message: {SIGNATURE_HEADER: "v1 x y"},
    "by a stranger": lambda _liar, message: {
        SIGNATURE_HEADER: sign_answer(SigningKey.generate(), asked_by(message), LIE)
    },
    "altered": lambda liar, message: {SIGNATURE_HEADER: sign_answer(liar.key, asked_by(message), LIE + b" ")},
    "for another reply subject": lambda liar, message: signed(liar, message, reply=f"{message.reply}0"),
    "for another call": lambda liar, message: signed(liar, message, subject=subjects.call(SID, "state")),
    "for another server": lambda liar, message: signed(liar, message, subject=subjects.call("srv2", "ledger")),
    "for another question": lambda liar, message: signed(liar, message, question=b"{}"),
    "a command": lambda liar, message: {SIGNATURE_HEADER: sign_command(liar.key, message.reply, LIE)},
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_an_answer_without_the_right_signature_is_refused(liar: Liar, calls: Calls, forgery: str) -> None:
    assert await calls.ledger(QUERY) == LedgerAnswer(pending_count=0)
    liar.answer = lambda message: (LIE, FORGERIES[forgery](liar, message))
    with pytest.raises(AnswerUntrusted):
        await calls.ledger(QUERY)
    with pytest.raises(AnswerUntrusted):
        await calls.ledger_batch(BatchName(epoch="e1", seq=1, digest=codec.sha256_hex(LIE)))


async def test_an_answer_kept_from_an_earlier_call_is_refused_for_a_later_one(liar: Liar, calls: Calls) -> None:
    await calls.ledger(QUERY)
    kept = liar.honest(liar.heard[0])
    liar.answer = lambda _message: kept
    with pytest.raises(AnswerUntrusted):
        await calls.ledger(QUERY)
    assert liar.heard[0].payload == liar.heard[1].payload


async def test_an_answer_delivered_under_another_connections_inbox_is_not_heard(
    liar: Liar, calls: Calls, link: BrokerLink
) -> None:
    """A broker may write any subject on a delivery; only real ones come over a real broker, so the rest is played."""
    session = link._current()
    liar.answer = lambda message: (LIE, {})
    with pytest.raises(AnswerUntrusted):
        await calls.ledger(QUERY)
    payload, headers = liar.honest(liar.heard[0])
    inbox, _, token = liar.heard[0].reply.rpartition(".")

    class Delivery:
        subject, reply, data = f"{inbox}0.{int(token) + 1}", "", payload

    Delivery.headers = headers
    real_publish = session.publish

    async def publish_and_deliver(*args: Any) -> None:
        await session._on_answer(Delivery)
        assert not next(iter(session._waiting.values())).done()
        await real_publish(*args)

    session.publish = publish_and_deliver
    liar.answer = liar.honest
    assert await calls.ledger(QUERY) == LedgerAnswer(pending_count=0)


async def test_forged_answers_are_logged_once_per_kind(
    liar: Liar, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str]] = []

    class Log:
        def error(self, _event: str, *, method: str, code: str) -> None:
            told.append((method, code))

    monkeypatch.setattr(calls_module, "_log", Log())
    for headers in ({}, {}, {SIGNATURE_HEADER: "v1 x y"}, {}):
        liar.answer = lambda _message, headers=headers: (LIE, headers)
        with pytest.raises(AnswerUntrusted):
            await calls.ledger(QUERY)
    assert told == [("ledger", "signature_missing"), ("ledger", "signature_malformed")]
