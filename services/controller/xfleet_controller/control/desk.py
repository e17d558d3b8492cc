"""The desk of `fleet.ctl.*` and `fleet.ctl.cli.*`: a NATS micro service named `xfleet`, answered over `svc` only.

The broker lets only the bot ask on the former and only command lines on the latter: so a Telegram account is believed
where the bot asks, and nowhere else.

Its `$SRV` answers have the forms of NATS ADR-32, so that the NATS command line can list, inspect and measure it.
"""

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from xfleet_contracts import codec, subjects
from xfleet_contracts.commands import Reply
from xfleet_contracts.errors import ErrorBody, Refusal
from xfleet_controller.context import Context
from xfleet_controller.control.methods import Method, methods_of_bot, methods_of_cli
from xfleet_controller.fleet.inbox import UnknownMethod, answer_of, refusal_of
from xfleet_controller.trace import tracing
from xfleet_runtime.broker import BrokerLink, BrokerOutage, Incoming
from xfleet_runtime.ids import new_id
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
QUEUE = "q"
NAME = "xfleet"
VERSION = "0.1.0"
ALLOWED_INBOXES = ("_INBOX.b.", "_INBOX.o.")
WORKERS_COUNT = 8
INTERNAL = "internal"


@dataclass
class Endpoint:
    """A method and how it fared since this controller started."""

    name: str
    """As micro services spell it: without dots."""
    method: Method
    requests_count: int = 0
    errors_count: int = 0
    last_error: str = ""
    spent_ns: int = 0


class ControlDesk:
    """Answers bot and command line."""

    def __init__(self, context: Context, svc: BrokerLink) -> None:
        self._svc = svc
        self._id = new_id()
        self._started_at = context.clock.now()
        self._endpoints = {
            subjects.control(name): Endpoint(name, method) for name, method in methods_of_bot(context).items()
        } | {
            subjects.control_cli(name): Endpoint(f"cli-{name}", method)
            for name, method in methods_of_cli(context).items()
        }

    @property
    def methods(self) -> Mapping[str, Method]:
        """What can be asked, by subject."""
        return {subject: endpoint.method for subject, endpoint in self._endpoints.items()}

    async def start(self) -> None:
        """Begins to listen, on this and all later connections."""
        for asked in (subjects.ALL_CONTROLS, subjects.ALL_CLI_CONTROLS):
            await self._svc.subscribe(asked, self._on_control, queue=QUEUE, workers=WORKERS_COUNT)
        for verb, tell in (("PING", self._ping), ("INFO", self._info), ("STATS", self._stats)):
            for subject in (f"$SRV.{verb}", f"$SRV.{verb}.{NAME}", f"$SRV.{verb}.{NAME}.{self._id}"):
                await self._svc.subscribe(subject, self._teller(tell))

    async def _on_control(self, message: Incoming) -> None:
        with tracing(message.trace_id):
            await self._answer(message)

    async def _answer(self, message: Incoming) -> None:
        endpoint, started_ns = self._endpoints.get(message.subject), time.monotonic_ns()
        try:
            if endpoint is None:
                raise UnknownMethod
            endpoint.requests_count += 1
            payload = answer_of(await endpoint.method(message.payload))
        except Refusal as refusal:
            payload = refusal_of(refusal)
            _note_error(endpoint, refusal.code)
        except Exception:  # noqa: BLE001  the edge between bus and services
            error_id = secrets.token_hex(4)
            _log.exception("answering failed", subject=message.subject, error_id=error_id)
            body = ErrorBody(code=INTERNAL, message=f"Something broke on the controller (error {error_id}).")
            payload = codec.encode(Reply(ok=False, error=body))
            _note_error(endpoint, INTERNAL)
        if endpoint is not None:
            endpoint.spent_ns += time.monotonic_ns() - started_ns
        await self._respond(message, payload)

    def _teller(self, tell: Callable[[], dict[str, Any]]) -> Callable[[Incoming], Awaitable[None]]:
        async def on_message(message: Incoming) -> None:
            await self._respond(message, msgspec.json.encode(tell()))

        return on_message

    def _ping(self) -> dict[str, Any]:
        return self._head("ping")

    def _info(self) -> dict[str, Any]:
        endpoints = [_named(subject, each) | {"metadata": {}} for subject, each in sorted(self._endpoints.items())]
        return self._head("info") | {"description": "xfleet controller", "endpoints": endpoints}

    def _stats(self) -> dict[str, Any]:
        endpoints = [
            _named(subject, each)
            | {
                "num_requests": each.requests_count,
                "num_errors": each.errors_count,
                "last_error": each.last_error,
                "processing_time": each.spent_ns,
                "average_processing_time": each.spent_ns // max(each.requests_count, 1),
            }
            for subject, each in sorted(self._endpoints.items())
        ]
        return self._head("stats") | {"started": self._started_at.isoformat(), "endpoints": endpoints}

    def _head(self, kind: str) -> dict[str, Any]:
        answer = f"io.nats.micro.v1.{kind}_response"
        return {"type": answer, "name": NAME, "id": self._id, "version": VERSION, "metadata": {}}

    async def _respond(self, message: Incoming, payload: bytes) -> None:
        if not message.reply.startswith(ALLOWED_INBOXES):
            return
        try:
            await self._svc.publish(message.reply, payload)
        except BrokerOutage as outage:
            _log.info("an answer could not be sent", subject=message.subject, reason=str(outage))


def _named(subject: str, endpoint: Endpoint) -> dict[str, Any]:
    return {"name": endpoint.name, "subject": subject, "queue_group": QUEUE}


def _note_error(endpoint: Endpoint | None, code: str) -> None:
    if endpoint is not None:
        endpoint.errors_count += 1
        endpoint.last_error = code
