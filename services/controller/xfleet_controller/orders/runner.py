"""The runner carries out orders: one at a time per server, in the order they were given, resumed after a crash.

A running order is leased. Whoever finds a lease that ended sends the order again under the same command id, and the
agent joins the running one or answers again; so an order is carried out at most once however often it is sent.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.commands import CLOCK, INSTANCE, RATE_LIMITED
from xfleet_contracts.errors import Refusal
from xfleet_contracts.heartbeat import Heartbeat
from xfleet_controller.bus import AgentOffline, AgentTimeout
from xfleet_controller.context import Context
from xfleet_controller.errors import BusUnavailable
from xfleet_controller.orders import store
from xfleet_controller.orders.answers import kept
from xfleet_controller.orders.service import connect, error_of, record_of
from xfleet_controller.orders.store import Waiting
from xfleet_controller.orders.verbs import ALL, TRANSFERS, Verb
from xfleet_controller.servers.models import Server
from xfleet_controller.servers.presence import OFFLINE, PENDING
from xfleet_controller.tasks import store as tasks
from xfleet_controller.tasks.models import ServerTask
from xfleet_controller.trace import tracing
from xfleet_runtime.backoff import Backoff
from xfleet_runtime.ids import new_id
from xfleet_runtime.keys.sealed import BoxUnreadableError
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
LEASE = timedelta(seconds=30)
RENEW_EVERY_S = 10.0
LOOK_EVERY_S = 3.0
AT_ONCE_COUNT = 32
RETRY_FIRST_S = 1.0
RETRY_MOST_S = 20.0
PASSING = frozenset({CLOCK, INSTANCE, RATE_LIMITED})
"""Refusals that say something about the moment: the order waits and is sent again."""
UNKNOWN_OUTCOME = "The server did not answer in time; whether it did this is unknown."
INTERRUPTED = {
    "code": "interrupted",
    "message": "The controller stopped while the file was on its way. Do it again.",
}


class OrderUnreadable(Refusal):
    """An order that this release or this key file cannot read."""

    code = "order_unreadable"
    message = "The order cannot be read any more. Give it again."


@dataclass(kw_only=True)
class Claimed:
    """An order that is ours to carry out."""

    task: ServerTask
    server: Server
    maybe_done: bool
    """It was sent before and nobody knows what came of it."""


class OrderRunner:
    """Carries out what was ordered."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._owner = new_id()
        self._busy: set[int] = set()
        self._not_before_s: dict[int, float] = {}
        self._backoffs: dict[int, Backoff] = {}
        self._away: dict[str, int] = {}
        """Servers by sid that wait to be heard."""
        context.presence.on_beat.append(self._on_beat)

    async def run(self) -> None:
        """Claims and carries out, for ever."""
        self._busy.clear()
        if self._context.database.is_sqlite:
            async with self._context.database.write() as session:
                await store.free_all(session)
        wake = self._context.order_wake
        async with asyncio.TaskGroup() as group:
            while True:
                wake.clear()
                for claimed in await self._claim():
                    self._busy.add(claimed.server.id)
                    group.create_task(self._carry_out(claimed))
                try:
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await wake.wait()
                except TimeoutError:
                    continue

    def _on_beat(self, sid: str, _beat: Heartbeat) -> None:
        server_id = self._away.pop(sid, None)
        if server_id is not None:
            self._not_before_s.pop(server_id, None)
            self._context.order_wake.set()

    async def _claim(self) -> list[Claimed]:
        async with self._context.database.read() as session:
            waiting = await store.list_waiting(session)
        if not waiting:
            return []
        now = self._context.clock.now()
        if any(each.deadline_at is not None and each.deadline_at < now for each in waiting):
            await self._expire(now)
        claimed: list[Claimed] = []
        for each in self._due(waiting, now):
            if len(self._busy) + len(claimed) >= AT_ONCE_COUNT:
                break
            async with self._context.database.write() as session:
                found = await self._claim_one(session, each, now)
            if found is not None:
                claimed.append(found)
        return claimed

    def _due(self, waiting: Iterable[Waiting], now: datetime) -> list[Waiting]:
        """The oldest order of each server, if now is its time."""
        now_s = self._context.clock.monotonic_s()
        firsts: dict[int, Waiting] = {}
        for each in waiting:
            firsts.setdefault(each.server_id, each)
        free = [
            each
            for server_id, each in firsts.items()
            if server_id not in self._busy
            and self._not_before_s.get(server_id, 0.0) <= now_s
            and (each.lease_until_at is None or each.lease_until_at <= now)
        ]
        return [each for each in free if self._may_answer(each)]

    def _may_answer(self, due: Waiting) -> bool:
        """Whether asking makes sense; a server that is not there is asked when it is heard."""
        if due.verb in TRANSFERS or self._context.presence.status(due.sid) not in {OFFLINE, PENDING}:
            return True
        self._away[due.sid] = due.server_id
        return False

    async def _claim_one(self, session: AsyncSession, due: Waiting, now: datetime) -> Claimed | None:
        server = await session.get(Server, due.server_id)
        task = await store.claim(session, due.id, self._owner, now, now + LEASE)
        if task is None or server is None:
            return None
        if due.verb in TRANSFERS:
            _finish(task, "failed", now, error=INTERRUPTED)
            return None
        maybe_done = due.status == "running" or (task.error or {}).get("code") == AgentTimeout.code
        return Claimed(task=task, server=server, maybe_done=maybe_done)

    async def _expire(self, now: datetime) -> None:
        async with self._context.database.write() as session:
            count = await tasks.expire_overdue(session, now)
        if count:
            self._context.bell.ring()
            self._context.pulse.ring()

    async def _carry_out(self, claimed: Claimed) -> None:
        task = claimed.task
        renewing = asyncio.ensure_future(self._renew(task.id))
        try:
            with tracing(task.trace_id):
                await self._send(claimed)
        except Exception:  # noqa: BLE001  one order's bug must not stop the others
            error_id = new_id()[-8:]
            _log.exception("an order failed", task_id=task.id, error_id=error_id)
            text = f"Something broke on the controller (error {error_id})."
            await self._end(claimed, "failed", error={"code": "internal", "message": text})
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            self._busy.discard(claimed.server.id)
            self._context.order_wake.set()

    async def _send(self, claimed: Claimed) -> None:
        task, server = claimed.task, claimed.server
        self._context.pulse.ring()
        try:
            verb, body = self._opened(task)
            answer = await connect(self._context, server).ask(
                verb, body, command_id=task.command_id, trace_id=task.trace_id
            )
        except (AgentOffline, BusUnavailable) as refusal:
            await self._put_back(claimed, refusal)
        except AgentTimeout as refusal:
            await self._later(claimed, refusal)
        except Refusal as refusal:
            if refusal.code in PASSING:
                await self._put_back(claimed, refusal)
            else:
                await self._end(claimed, "failed", error=error_of(refusal))
        else:
            await self._end(claimed, "completed", response=kept(answer))

    def _opened(self, task: ServerTask) -> tuple[Verb[Any, Any], Any]:
        verb = ALL.get(task.verb)
        if verb is None or task.order_sealed is None:
            raise OrderUnreadable(verb=task.verb)
        try:
            return verb, self._context.vault.open_value(record_of(task), task.order_sealed, verb.body)
        except (BoxUnreadableError, msgspec.MsgspecError) as error:
            raise OrderUnreadable(verb=task.verb) from error

    async def _put_back(self, claimed: Claimed, refusal: Refusal) -> None:
        """Nobody got it: it waits until the server is heard, or until its deadline.

        One that was sent before stays unknown: it can neither be taken back nor be joined by the next of its kind.
        """
        if claimed.maybe_done:
            await self._later(claimed, refusal)
            return
        self._wait(claimed)
        error = error_of(refusal)
        await self._write(claimed, {"status": "pending", "lease_owner": "", "lease_until_at": None, "error": error})

    async def _later(self, claimed: Claimed, refusal: Refusal) -> None:
        """The outcome is unknown: it is asked for under the same id, until the deadline."""
        now, deadline_at = self._context.clock.now(), claimed.task.deadline_at
        if deadline_at is not None and deadline_at < now:
            await self._end(claimed, "expired", error={"code": refusal.code, "message": UNKNOWN_OUTCOME})
            return
        self._wait(claimed)
        await self._write(claimed, {"lease_owner": "", "lease_until_at": None, "error": error_of(refusal)})

    def _wait(self, claimed: Claimed) -> None:
        server = claimed.server
        wait_s = self._backoffs.setdefault(server.id, Backoff(RETRY_FIRST_S, RETRY_MOST_S)).next_s()
        self._not_before_s[server.id] = self._context.clock.monotonic_s() + wait_s
        self._away[server.slug] = server.id

    async def _end(
        self, claimed: Claimed, status: str, *, response: Any = None, error: dict[str, Any] | None = None
    ) -> None:
        server_id = claimed.server.id
        self._backoffs.pop(server_id, None)
        self._not_before_s.pop(server_id, None)
        self._away.pop(claimed.server.slug, None)
        now = self._context.clock.now()
        _finish(claimed.task, status, now, response=response, error=error)
        names = ("status", "completed_at", "took_ms", "response", "error", "lease_until_at", "order_sealed")
        await self._write(claimed, {name: getattr(claimed.task, name) for name in names})

    async def _write(self, claimed: Claimed, values: dict[str, Any]) -> None:
        async with self._context.database.write() as session:
            ours = await store.change_ours(session, claimed.task.id, self._owner, values)
        if not ours:
            _log.warning("an order was taken over or deleted meanwhile", task_id=claimed.task.id)
        self._context.bell.ring()
        self._context.pulse.ring()

    async def _renew(self, task_id: int) -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            async with self._context.database.write() as session:
                await store.renew(session, task_id, self._owner, self._context.clock.now() + LEASE)


def _finish(
    task: ServerTask, status: str, now: datetime, *, response: Any = None, error: dict[str, Any] | None = None
) -> None:
    """Sets what an order ends with; its body with its secrets goes."""
    task.status, task.completed_at, task.error = status, now, error
    task.response = response or {}
    task.lease_until_at = None
    task.order_sealed = None
    task.took_ms = int((now - (task.started_at or now)).total_seconds() * 1000)
