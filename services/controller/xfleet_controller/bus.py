"""The controller's links to the broker, and the signed way to order an agent.

Commands, traffic, heartbeats and live logs have connections of their own, so that a flood on one starves none of the
others.
Agents are answered only over `rpc`, which can reach inboxes and nothing else; bot and command line only over `svc`.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import msgspec

from xfleet_contracts import codec, subjects
from xfleet_contracts.commands import CLOCK, DEFAULT_TIMEOUT_S, INSTANCE, SIGNATURE_HEADER, TIMEOUT_S, Command, Reply
from xfleet_contracts.errors import ErrorBody, Refusal, RemoteRefusal
from xfleet_controller.servers.presence import Presence
from xfleet_controller.trace import current_trace_id
from xfleet_runtime.broker import BrokerLink, BrokerOutage, Credentials, NoResponders, traceparent
from xfleet_runtime.clock import Clock
from xfleet_runtime.ids import new_id
from xfleet_runtime.keys.signing import SigningKey, sign_command
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
T = TypeVar("T")
EXPIRY_SLACK_S = 30
RESIGN_COUNT = 3
BAD_ANSWER = "bad_answer"
MAX_MOMENT_MS = 2**52
LINKS = {
    "commands": "ctl",
    "traffic": "ctl",
    "heartbeats": "ctl",
    "logs": "ctl",
    "rpc": "rpc",
    "svc": "svc",
    "sys": "sys",
}
"""Link by its name here, and its role."""


class AgentOffline(Refusal):
    """No agent listens: the order certainly reached nobody."""

    code = "agent_offline"
    status = 503
    message = "The server is offline."


class AgentTimeout(Refusal):
    """No answer in time: whether the order was carried out is unknown; repeat with the same id."""

    code = "agent_timeout"
    status = 504
    message = "The server did not answer in time."


class Bus:
    """All links of one controller."""

    def __init__(self, links: dict[str, BrokerLink]) -> None:
        self.commands = links["commands"]
        self.traffic = links["traffic"]
        self.heartbeats = links["heartbeats"]
        self.logs = links["logs"]
        self.rpc = links["rpc"]
        self.svc = links["svc"]
        self.sys = links["sys"]
        self.all = tuple(links.values())

    @property
    def connected(self) -> bool:
        """Whether every link stands."""
        return all(link.connected for link in self.all)


@asynccontextmanager
async def open_bus(credentials: dict[str, Credentials]) -> AsyncIterator[Bus]:
    """The links, connecting in the background until the block ends; `credentials` by the names in `LINKS`."""
    async with AsyncExitStack() as stack:
        links = {name: BrokerLink(credentials[name], name=f"controller {name}") for name in LINKS}
        bus = Bus(links)
        for link in links.values():
            await stack.enter_async_context(link)
        yield bus


class Commander:
    """Signs and sends commands with this controller's key."""

    def __init__(self, link: BrokerLink, key: SigningKey, presence: Presence, clock: Clock) -> None:
        self._link = link
        self._key = key
        self._presence = presence
        self._clock = clock

    async def request(
        self,
        sid: str,
        verb: str,
        body: Any,
        answer_type: type[T],
        *,
        timeout_s: float | None = None,
        command_id: str = "",
        trace_id: str = "",
    ) -> T:
        """The agent's answer. Raises `AgentOffline`, `AgentTimeout` or `RemoteRefusal`.

        Repeat with the same `command_id` after a timeout. A wrong clock or process is corrected and signed again.
        """
        wait_s = timeout_s or TIMEOUT_S.get(verb, DEFAULT_TIMEOUT_S)
        command_id = command_id or new_id()
        raw = msgspec.Raw(codec.canonical(body))
        instance, issued_at_ms = self._presence.instance(sid), self._clock.now_ms()
        for attempt in range(RESIGN_COUNT):
            command = Command(
                id=command_id,
                sid=sid,
                verb=verb,
                instance=instance,
                issued_at_ms=issued_at_ms,
                expires_at_ms=issued_at_ms + int((wait_s + EXPIRY_SLACK_S) * 1000),
                body=raw,
            )
            error = None
            reply = await self._exchange(command, wait_s, trace_id)
            if reply.ok:
                return _opened(sid, bytes(reply.data), answer_type)
            error = reply.error or ErrorBody(code="unknown", message="The agent refused without a reason.")
            if attempt == RESIGN_COUNT - 1:
                break
            if error.code == INSTANCE and isinstance(error.details.get("instance"), str):
                instance = error.details["instance"]
            elif error.code == CLOCK and _is_moment(error.details.get("now_ms")):
                issued_at_ms = error.details["now_ms"]
            else:
                break
        raise RemoteRefusal(error)

    async def send(self, sid: str, verb: str, body: Any) -> None:
        """Sends an order nobody answers: the latest wins. Raises `BrokerOutage`."""
        now_ms = self._clock.now_ms()
        command = Command(
            id=new_id(),
            sid=sid,
            verb=verb,
            issued_at_ms=now_ms,
            expires_at_ms=now_ms + EXPIRY_SLACK_S * 1000,
            body=msgspec.Raw(codec.canonical(body)),
        )
        subject, payload = subjects.command(sid, verb), codec.encode(command)
        await self._link.publish(
            subject, payload, headers={SIGNATURE_HEADER: sign_command(self._key, subject, payload)} | traceparent()
        )

    async def _exchange(self, command: Command, wait_s: float, trace_id: str) -> Reply:
        subject, payload = subjects.command(command.sid, command.verb), codec.encode(command)
        headers = {SIGNATURE_HEADER: sign_command(self._key, subject, payload)} | traceparent(
            trace_id or current_trace_id()
        )
        try:
            answer = await self._link.request(subject, payload, timeout_s=wait_s, headers=headers)
        except NoResponders as outage:
            raise AgentOffline(sid=command.sid) from outage
        except BrokerOutage as outage:
            raise AgentTimeout(sid=command.sid, reason=str(outage)) from outage
        return _opened(command.sid, answer.payload, Reply)


def _opened(sid: str, payload: bytes, kind: type[T]) -> T:
    try:
        return codec.decode(payload, kind)
    except Refusal as refusal:
        error = ErrorBody(code=BAD_ANSWER, message=f"The server's answer cannot be read: {refusal.text}"[:500])
        _log.info("an agent's answer cannot be read", sid=sid, reason=refusal.text)
        raise RemoteRefusal(error) from refusal


def _is_moment(value: object) -> bool:
    return isinstance(value, int) and 0 < value < MAX_MOMENT_MS
