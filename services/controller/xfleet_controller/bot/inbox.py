"""`fleet.ctl.*`: what bot and command line ask; a NATS micro service named `xfleet`, answered over `svc` only."""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from xfleet_contracts import codec, control, subjects
from xfleet_contracts.commands import Reply
from xfleet_contracts.control import Actor as BotActor
from xfleet_contracts.control import ActorRequest, BindRequest
from xfleet_contracts.errors import ErrorBody, Refusal
from xfleet_controller.bot import service
from xfleet_controller.context import Context
from xfleet_controller.fleet.inbox import UnknownMethod, answer_of, refusal_of
from xfleet_runtime.broker import BrokerLink, BrokerOutage, Incoming
from xfleet_runtime.ids import new_id
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
QUEUE = "q"
NAME = "xfleet"
VERSION = "0.1.0"
ALLOWED_INBOXES = ("_INBOX.b.", "_INBOX.o.")


class ControlDesk:
    """Answers bot and command line."""

    def __init__(self, context: Context, svc: BrokerLink) -> None:
        self._context = context
        self._svc = svc
        self._id = new_id()
        self._methods: dict[str, Callable[[bytes], Awaitable[Any]]] = {
            control.BIND: self._bind,
            control.WHOAMI: self._whoami,
            control.STATUS: self._status,
        }

    @property
    def methods(self) -> Mapping[str, Callable[[bytes], Awaitable[Any]]]:
        """What can be asked, by name."""
        return self._methods

    async def start(self) -> None:
        """Begins to listen, on this and all later connections."""
        await self._svc.subscribe(subjects.ALL_CONTROLS, self._on_control, queue=QUEUE, workers=4)
        for verb, tell in (("PING", self._ping), ("INFO", self._info)):
            for subject in (f"$SRV.{verb}", f"$SRV.{verb}.{NAME}", f"$SRV.{verb}.{NAME}.{self._id}"):
                await self._svc.subscribe(subject, self._teller(tell))

    async def _on_control(self, message: Incoming) -> None:
        method = self._methods.get(message.subject.rpartition(".")[2])
        try:
            if method is None:
                raise UnknownMethod
            payload = answer_of(await method(message.payload))
        except Refusal as refusal:
            payload = refusal_of(refusal)
        except Exception:  # noqa: BLE001  the edge between bus and services
            error_id = secrets.token_hex(4)
            _log.exception("answering failed", subject=message.subject, error_id=error_id)
            body = ErrorBody(code="internal", message=f"Something broke on the controller (error {error_id}).")
            payload = codec.encode(Reply(ok=False, error=body))
        await self._respond(message, payload)

    async def _bind(self, payload: bytes) -> BotActor:
        return await service.bind(self._context, codec.decode(payload, BindRequest))

    async def _whoami(self, payload: bytes) -> BotActor:
        actor = await service.who_asks(self._context, codec.decode(payload, ActorRequest))
        return BotActor(admin=actor.name, role=actor.role)

    async def _status(self, payload: bytes) -> Any:
        actor = await service.who_asks(self._context, codec.decode(payload, ActorRequest))
        return await service.status(self._context, actor)

    def _teller(self, tell: Callable[[], dict[str, Any]]) -> Callable[[Incoming], Awaitable[None]]:
        async def on_message(message: Incoming) -> None:
            await self._respond(message, msgspec.json.encode(tell()))

        return on_message

    def _ping(self) -> dict[str, Any]:
        return {
            "type": "io.nats.micro.v1.ping_response", "name": NAME, "id": self._id, "version": VERSION, "metadata": {},
        }  # fmt: skip

    def _info(self) -> dict[str, Any]:
        endpoints = [
            {"name": method, "subject": subjects.control(method), "queue_group": QUEUE, "metadata": {}}
            for method in sorted(self._methods)
        ]
        return self._ping() | {
            "type": "io.nats.micro.v1.info_response", "description": "xfleet controller", "endpoints": endpoints,
        }  # fmt: skip

    async def _respond(self, message: Incoming, payload: bytes) -> None:
        if not message.reply.startswith(ALLOWED_INBOXES):
            return
        try:
            await self._svc.publish(message.reply, payload)
        except BrokerOutage as outage:
            _log.info("an answer could not be sent", subject=message.subject, reason=str(outage))
