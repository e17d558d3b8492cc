"""The command desk: nothing is done that a controller of this fleet did not sign for this agent, now, once.

The signature is checked before anything is parsed. Every refusal has a word, is counted, and is logged once a minute.
"""

import asyncio
import hashlib
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from xfleet_agent.database import Worker
from xfleet_agent.fleet_clock import FleetClock
from xfleet_agent.journal import Journal
from xfleet_contracts import codec, subjects
from xfleet_contracts.commands import (
    CLOCK,
    INSTANCE,
    INTERRUPTED,
    PER_MINUTE,
    RATE_LIMITED,
    REMEMBER_AFTER_EXPIRY_S,
    REUSED_ID,
    SIGNATURE_HEADER,
    UNKNOWN_VERB,
    UNREPLIED,
    WEIGHTS,
    Command,
    Reply,
    Weight,
)
from xfleet_contracts.errors import ErrorBody, MessageTooLarge, Refusal
from xfleet_runtime.broker import Incoming
from xfleet_runtime.keys.signing import verify_command
from xfleet_runtime.log import get_logger
from xfleet_runtime.main import describe_disk_error

LOGGED_EVERY_S = 60.0
CEILINGS_PER_MINUTE: dict[Weight, int] = {weight: 6 * count for weight, count in PER_MINUTE.items()}
"""Far above what the controller lets one admin do: they stop a runaway, not a person."""
_log = get_logger(__name__)


class MisAddressed(Refusal):
    """A signed command whose envelope does not fit its subject."""

    code = "misaddressed"
    message = "The command's envelope does not match its subject."


class ForeignInbox(Refusal):
    """A command whose answer would go anywhere but to a controller: the broker would let us publish it there."""

    code = "foreign_inbox"
    message = "The command wants its answer where no controller listens."


class OtherInstance(Refusal):
    """A command for an agent process that is gone, or not yet known."""

    code = INSTANCE
    status = 409
    message = "The command is for another instance of this agent."


class ClockWrong(Refusal):
    """A command that is past its time on the corrected clock."""

    code = CLOCK
    status = 409
    message = "The command has expired by this agent's clock."


class IdReused(Refusal):
    """An id that was already used for something else."""

    code = REUSED_ID
    status = 409
    message = "The command's id was already used with another body."


class Interrupted(Refusal):
    """A command that was torn by the agent's death and must not be repeated blindly."""

    code = INTERRUPTED
    status = 409
    message = "The agent was interrupted while it carried out this command; the outcome is unknown."


class VerbUnknown(Refusal):
    """A verb this agent does not know."""

    code = UNKNOWN_VERB
    status = 404
    message = "This agent does not know that command."


class TooMany(Refusal):
    """More commands of a kind than an agent takes in a minute."""

    code = RATE_LIMITED
    status = 429
    message = "Too many commands of this kind within a minute."


class StorageFailed(Refusal):
    """The agent's disk does not take what must be remembered."""

    code = "storage"
    status = 507
    message = "The agent cannot write to its disk; nothing was changed."


class Failed(Refusal):
    """A bug: logged with the id that the answer carries."""

    code = "internal"
    status = 500
    message = "The agent failed; its log says more under this id."


Handler = Callable[[msgspec.Raw], Awaitable[Any]]


class Verb(msgspec.Struct, frozen=True, kw_only=True):
    """How a command is carried out."""

    handler: Handler
    repeatable: bool = True
    """Whether it may simply be done again after it was torn."""
    at_once: int = 4
    """How many may run at the same time; of a heavy verb only as many again may wait."""


def _weight_of(verb: str) -> Weight:
    """`read` leaves nothing on disk; `write` and `heavy` are remembered; `state` is remembered and not limited."""
    return WEIGHTS.get(verb, "read")


class Desk:
    """Checks and carries out what comes on `fleet.cmd.<sid>.>`."""

    def __init__(
        self,
        *,
        sid: str,
        instance: str,
        clock: FleetClock,
        journal: Journal,
        worker: Worker,
        trusted: Callable[[], Mapping[str, bytes]],
    ) -> None:
        self._sid = sid
        self._instance = instance
        self._clock = clock
        self._journal = journal
        self._worker = worker
        self._trusted = trusted
        self._verbs: dict[str, Verb] = {}
        self._gates: dict[str, asyncio.Semaphore] = {}
        self._inside: Counter[str] = Counter()
        self._running: dict[str, tuple[str, asyncio.Future[Reply]]] = {}
        self._used: dict[Weight, deque[float]] = {weight: deque() for weight in CEILINGS_PER_MINUTE}
        self.refused_counts: Counter[str] = Counter()
        """Refusals by word, since this process started."""
        self._logged_at: dict[str, float] = {}

    def add(self, name: str, verb: Verb) -> None:
        """Makes a verb known."""
        self._verbs[name] = verb
        self._gates[name] = asyncio.Semaphore(verb.at_once)

    async def handle(self, message: Incoming) -> bytes | None:
        """The answer to a message, or None when it gets none."""
        started = time.monotonic()
        if message.reply and not subjects.is_controller_inbox(message.reply):
            self._count(ForeignInbox(), message.subject)
            return None
        unreplied = subjects.tail_of(message.subject) in UNREPLIED
        try:
            reply = await self._judge(message)
        except Refusal as refusal:
            self._count(refusal, message.subject)
            reply = _refused(refusal)
        except sqlite3.Error as error:
            refusal = StorageFailed(reason=str(error))
            self._count(refusal, message.subject)
            reply = _refused(refusal)
        if unreplied or not message.reply:
            return None
        took_ms = int((time.monotonic() - started) * 1000)
        try:
            return codec.encode(msgspec.structs.replace(reply, trace_id=message.trace_id, took_ms=took_ms))
        except MessageTooLarge as refusal:
            return codec.encode(_refused(refusal))

    async def _judge(self, message: Incoming) -> Reply:
        verify_command(self._trusted(), message.headers.get(SIGNATURE_HEADER), message.subject, message.payload)
        command = codec.decode(message.payload, Command)
        verb_name = subjects.tail_of(message.subject)
        if command.sid != self._sid or subjects.sid_of(message.subject) != self._sid or command.verb != verb_name:
            raise MisAddressed(subject=message.subject)
        if verb_name not in UNREPLIED and command.instance != self._instance:
            raise OtherInstance(instance=self._instance)
        self._clock.learn(command.issued_at_ms)
        if command.expires_at_ms < self._clock.now_ms():
            raise ClockWrong(now_ms=self._clock.now_ms())
        verb = self._verbs.get(verb_name)
        if verb is None:
            raise VerbUnknown(verb=verb_name)
        if verb_name in UNREPLIED:
            await verb.handler(command.body)
            return Reply(ok=True)
        return await self._once(command, verb)

    async def _once(self, command: Command, verb: Verb) -> Reply:
        """Carries a command out, joins the running one, or answers again."""
        digest = hashlib.sha256(f"{command.verb}\0".encode() + bytes(command.body)).hexdigest()
        if command.id in self._running:
            known, future = self._running[command.id]
            if known != digest:
                raise IdReused
            return await asyncio.shield(future)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._running[command.id] = (digest, future)
        try:
            reply = await self._remembered(command, verb, digest)
        except Refusal as refusal:
            future.set_result(_refused(refusal))
            raise
        else:
            future.set_result(reply)
            return reply
        finally:
            if not future.done():
                future.cancel()
            del self._running[command.id]

    async def _remembered(self, command: Command, verb: Verb, digest: str) -> Reply:
        weight = _weight_of(command.verb)
        if weight == "read":
            self._limit(weight)
            return await self._carry_out(command, verb)
        known = await self._worker.run(self._journal.find, command.id)
        if known is not None:
            if known.digest != digest:
                raise IdReused
            if known.reply is not None:
                return codec.decode(known.reply, Reply)
            if not verb.repeatable:
                raise Interrupted
        self._limit(weight)
        forget_at_ms = command.expires_at_ms + REMEMBER_AFTER_EXPIRY_S * 1000
        await self._worker.run(self._journal.begin, command.id, command.verb, digest, self._instance, forget_at_ms)
        reply = await self._carry_out(command, verb)
        await self._worker.run(self._journal.end, command.id, codec.encode(reply))
        return reply

    async def _carry_out(self, command: Command, verb: Verb) -> Reply:
        if _weight_of(command.verb) == "heavy" and self._inside[command.verb] >= 2 * verb.at_once:
            return _refused(TooMany(verb=command.verb))
        self._inside[command.verb] += 1
        try:
            async with self._gates[command.verb]:
                return await self._done(command, verb)
        finally:
            self._inside[command.verb] -= 1

    async def _done(self, command: Command, verb: Verb) -> Reply:
        try:
            return Reply(ok=True, data=msgspec.Raw(codec.canonical(await verb.handler(command.body))))
        except Refusal as refusal:
            return _refused(refusal)
        except sqlite3.Error as error:
            return _refused(StorageFailed(reason=str(error)))
        except Exception as error:  # noqa: BLE001  the edge between bus and verbs
            reason = describe_disk_error(error)
            if reason is not None:
                return _refused(StorageFailed(reason=reason))
            _log.exception("command failed", verb=command.verb, error_id=command.id)
            return _refused(Failed(error_id=command.id))

    def _limit(self, weight: Weight) -> None:
        if weight not in self._used:
            return
        now, used = time.monotonic(), self._used[weight]
        while used and used[0] < now - 60:
            used.popleft()
        if len(used) >= CEILINGS_PER_MINUTE[weight]:
            raise TooMany(weight=weight)
        used.append(now)

    def _count(self, refusal: Refusal, subject: str) -> None:
        self.refused_counts[refusal.code] += 1
        now = time.monotonic()
        if now - self._logged_at.get(refusal.code, -LOGGED_EVERY_S) >= LOGGED_EVERY_S:
            self._logged_at[refusal.code] = now
            count = self.refused_counts[refusal.code]
            _log.warning("command refused", code=refusal.code, subject=subject, reason=refusal.text, count=count)


def _refused(refusal: Refusal) -> Reply:
    body: ErrorBody = refusal.body()
    return Reply(ok=False, error=body)
