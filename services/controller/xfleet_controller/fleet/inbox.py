"""The desks on the bus: enrollment, and the calls of agents. Both answer only to the asker's own inbox, over `rpc`.

Answers to agents are signed with the controller's command key: the broker must not be able to tell them anything.
"""

import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from sqlalchemy import select

from xfleet_contracts import codec, subjects
from xfleet_contracts.apply import SNAPSHOT_GONE, ChunkRequest
from xfleet_contracts.commands import SIGNATURE_HEADER, Reply
from xfleet_contracts.enrollment import EnrollRequest
from xfleet_contracts.errors import ErrorBody, MessageMalformed, Refusal
from xfleet_controller.context import Context
from xfleet_controller.fleet import service
from xfleet_controller.fleet.service import Fleet
from xfleet_controller.servers.difference import find_chunk
from xfleet_controller.servers.models import Server
from xfleet_controller.servers.presence import Bucket
from xfleet_runtime.broker import BrokerLink, BrokerOutage, Incoming
from xfleet_runtime.keys.signing import Asked, SigningKey, sign_answer
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
QUEUE = "controller"
WORKERS_COUNT = 8
CALLS_BURST_COUNT = 200
CALLS_PER_S = 20
ENROLL_BURST_COUNT = 10
ENROLL_PER_S = 0.1
TOKENS_KEPT = 4096
Answerer = Callable[[str, int, bytes], Awaitable[bytes]]
"""Gets sid, server id and payload of a call; gives the answer's payload."""


class SnapshotGone(Refusal):
    """A chunk that is not offered (any more)."""

    code = SNAPSHOT_GONE
    status = 404
    message = "This part of the snapshot is no longer offered; ask for the state again."


class UnknownMethod(Refusal):
    """A call this controller does not know."""

    code = "unknown_method"
    status = 404
    message = "There is no such call."


def answer_of(data: Any) -> bytes:
    """The payload of a good answer."""
    raw = data if isinstance(data, msgspec.Raw) else msgspec.Raw(codec.canonical(data))
    return codec.encode(Reply(ok=True, data=raw))


def refusal_of(refusal: Refusal) -> bytes:
    """The payload of a refusal."""
    return codec.encode(Reply(ok=False, error=refusal.body()))


class Desks:
    """Answers agents and those who enroll."""

    def __init__(
        self, context: Context, fleet: Fleet, rpc: BrokerLink, key: SigningKey, on_revoked: Callable[[], None]
    ) -> None:
        self.refused_count: Counter[str] = Counter()
        """Calls that were not answered, by reason."""
        self._context = context
        self._fleet = fleet
        self._rpc = rpc
        self._key = key
        self._on_revoked = on_revoked
        self._buckets: dict[str, Bucket] = {}
        self._enrolling: dict[str, Bucket] = {}
        self._logged: set[tuple[str, str]] = set()
        self._methods: dict[str, Answerer] = {"state": self._state, "renew": self._renew}

    def add(self, method: str, answerer: Answerer) -> None:
        """Lets another feature answer a method of `fleet.rpc.<sid>.<method>`."""
        self._methods[method] = answerer

    async def start(self) -> None:
        """Begins to listen, on this and all later connections."""
        await self._rpc.subscribe(subjects.ALL_AGENT_CALLS, self._on_call, queue=QUEUE, workers=WORKERS_COUNT)
        await self._rpc.subscribe(subjects.ALL_ENROLLMENTS, self._on_enroll, queue=QUEUE, workers=2)

    async def _on_call(self, message: Incoming) -> None:
        try:
            sid = subjects.sid_of(message.subject)
        except MessageMalformed:
            self._ignore("", "bad_subject")
            return
        if not subjects.is_own_inbox(message.reply, sid):
            self._ignore(sid, "foreign_inbox")
            return
        now_s = self._context.clock.monotonic_s()
        fresh = Bucket(filled_at_s=now_s, burst=CALLS_BURST_COUNT, per_s=CALLS_PER_S, tokens=CALLS_BURST_COUNT)
        if not self._buckets.setdefault(sid, fresh).take(now_s):
            self._ignore(sid, "too_fast")
            return
        payload = await self._answered(message, lambda: self._call(sid, message))
        asked = Asked(reply=message.reply, subject=message.subject, question=message.payload)
        headers = {SIGNATURE_HEADER: sign_answer(self._key, asked, payload)}
        await self._respond(message, payload, subjects.agent_inbox(sid), headers)

    async def _call(self, sid: str, message: Incoming) -> bytes:
        answerer = self._methods.get(subjects.tail_of(message.subject))
        if answerer is None:
            raise UnknownMethod
        async with self._context.database.read() as session:
            server_id = await session.scalar(select(Server.id).where(Server.slug == sid))
        if server_id is None:
            raise service.NothingEnrolled
        return await answerer(sid, server_id, message.payload)

    async def _on_enroll(self, message: Incoming) -> None:
        token_id = message.subject.rpartition(".")[2]
        within = subjects.enroll_inbox(token_id)
        if not message.reply.startswith(f"{within}."):
            self._ignore(token_id, "foreign_inbox")
            return

        async def answer() -> bytes:
            self._limit_enrolling(token_id)
            request = codec.decode(message.payload, EnrollRequest)
            identity, revoked = await service.enroll(self._context.database, self._fleet, token_id, request)
            if revoked:
                self._on_revoked()
            return answer_of(identity)

        await self._respond(message, await self._answered(message, answer), within)

    def _limit_enrolling(self, token_id: str) -> None:
        """Raises `EnrollingTooOften`; the tokens that asked longest ago are forgotten."""
        now_s = self._context.clock.monotonic_s()
        fresh = Bucket(filled_at_s=now_s, burst=ENROLL_BURST_COUNT, per_s=ENROLL_PER_S, tokens=ENROLL_BURST_COUNT)
        bucket = self._enrolling.pop(token_id, fresh)
        self._enrolling[token_id] = bucket
        while len(self._enrolling) > TOKENS_KEPT:
            del self._enrolling[next(iter(self._enrolling))]
        if not bucket.take(now_s):
            raise service.EnrollingTooOften

    async def _answered(self, message: Incoming, answer: Callable[[], Awaitable[bytes]]) -> bytes:
        try:
            return await answer()
        except Refusal as refusal:
            self.refused_count[refusal.code] += 1
            return refusal_of(refusal)
        except Exception:  # noqa: BLE001  the edge between bus and services
            error_id = secrets.token_hex(4)
            _log.exception("answering a call failed", subject=message.subject, error_id=error_id)
            body = ErrorBody(code="internal", message=f"Something broke on the controller (error {error_id}).")
            return codec.encode(Reply(ok=False, error=body))

    async def _respond(
        self, message: Incoming, payload: bytes, within: str, headers: Mapping[str, str] | None = None
    ) -> None:
        try:
            await self._rpc.respond(message, payload, within=within, headers=headers)
        except BrokerOutage as outage:
            _log.info("an answer could not be sent", subject=message.subject, reason=str(outage))

    async def _state(self, sid: str, server_id: int, payload: bytes) -> bytes:
        request = codec.decode(payload, ChunkRequest)
        async with self._context.database.read() as session:
            chunk = await find_chunk(session, self._context.vault, server_id, request.chunk)
        if chunk is None:
            raise SnapshotGone(sid=sid)
        return answer_of(msgspec.Raw(chunk))

    async def _renew(self, sid: str, _server_id: int, payload: bytes) -> bytes:
        return answer_of(
            await service.renew(self._context.database, self._fleet, sid, codec.decode(payload, EnrollRequest))
        )

    def _ignore(self, sid: str, reason: str) -> None:
        self.refused_count[reason] += 1
        if (sid, reason) not in self._logged and len(self._logged) < 10_000:  # noqa: PLR2004
            self._logged.add((sid, reason))
            _log.warning("a call was refused", sid=sid, reason=reason)


__all__ = ["Answerer", "Desks", "answer_of", "refusal_of"]
