"""Moves rollouts on: orders the servers of a wave, watches them, and stops at the first that is not well.

Each step is one transaction that holds the rollout's row, so that it survives a crash at any point, and another
controller never orders a server twice.
"""

import asyncio
from datetime import datetime

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.errors import Refusal
from xfleet_controller.auth.rights import Actor
from xfleet_controller.context import Context
from xfleet_controller.orders.service import add_order
from xfleet_controller.outbox import note_event
from xfleet_controller.rollouts import store
from xfleet_controller.rollouts.plan import (
    SETTLE_S,
    Sight,
    Watch,
    judge,
    reason_to_leave_alone,
    reason_to_skip,
    trouble_of,
)
from xfleet_controller.rollouts.service import RolloutPlan, plan_of, settle_s, verb_of
from xfleet_controller.servers.models import Rollout, RolloutServer, Server
from xfleet_controller.tasks.models import ServerTask
from xfleet_controller.trace import tracing
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
LOOK_EVERY_S = 1.0
AT_ONCE_COUNT = 25
"""Servers of a wave that are upgraded at the same moment."""
MAX_ERROR = 1000


class RolloutRunner:
    """Moves all rollouts on."""

    def __init__(self, context: Context, *, settle_s: float = SETTLE_S) -> None:
        self._context = context
        self._settle_s = settle_s
        self._watches: dict[tuple[int, int], Watch] = {}

    async def run(self) -> None:
        """Steps every rollout that is not over, for ever."""
        while True:
            async with self._context.database.read() as session:
                moving = await store.list_moving(session)
            for rollout_id in moving:
                await self._step(rollout_id)
            if not moving:
                self._watches.clear()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _step(self, rollout_id: int) -> None:
        ordered, changed = False, False
        async with self._context.database.write() as session:
            rollout = await store.lock(session, rollout_id)
            if rollout is None:
                return
            plan = plan_of(rollout)
            with tracing(plan.trace_id):
                rows = await store.list_servers(session, rollout_id)
                before = [row.status for row, _ in rows]
                for row, server in rows:
                    if row.status in store.IN_FLIGHT:
                        await self._look(session, rollout, plan, row, server)
                if rollout.status == store.RUNNING and not _stopped_by_failure(rollout, rows):
                    ordered = await self._next(session, rollout, plan, rows)
                changed = before != [row.status for row, _ in rows]
                self._settle(session, rollout, rows)
                if changed:
                    rollout.updated_at = self._context.clock.now()
        if ordered:
            self._context.order_wake.set()
        if changed:
            self._context.pulse.ring()

    async def _next(
        self, session: AsyncSession, rollout: Rollout, plan: RolloutPlan, rows: list[tuple[RolloutServer, Server]]
    ) -> bool:
        """Orders the servers whose turn it is; whether there was one."""
        waves = [row.wave for row, _ in rows if row.status in {store.WAITING, *store.IN_FLIGHT}]
        places = AT_ONCE_COUNT - sum(row.status in store.IN_FLIGHT for row, _ in rows)
        ordered = False
        for row, server in rows:
            if places <= 0 or row.status != store.WAITING or row.wave != min(waves):
                continue
            ordered |= await self._order(session, rollout, plan, row, server)
            places -= row.status == store.ORDERED
        return ordered

    async def _order(
        self, session: AsyncSession, rollout: Rollout, plan: RolloutPlan, row: RolloutServer, server: Server
    ) -> bool:
        now, verb = self._context.clock.now(), verb_of(rollout)
        sight = self._sight(server, None)
        reason = reason_to_leave_alone(enabled=server.enabled, mode=server.mode) or reason_to_skip(verb.name, sight)
        if reason:
            row.status, row.error, row.completed_at = store.SKIPPED, reason, now
            return False
        channel, _, name = rollout.actor.partition(":")
        actor = Actor(name=name or channel, role="", channel=channel)
        body = msgspec.convert(plan.order, verb.body)
        try:
            task, _joined = await add_order(session, self._context, actor, server.id, verb, body)
        except Refusal as refusal:
            row.status, row.error, row.completed_at = store.FAILED, refusal.text[:MAX_ERROR], now
            return False
        row.status, row.task_id, row.started_at, row.error = store.ORDERED, task.id, now, ""
        if sight.beat is not None:
            versions = {"agent.update": sight.beat.agent_version, "xray.install": sight.beat.xray.version}
            row.version_before = versions.get(verb.name, "")[:50]
        return True

    async def _look(
        self, session: AsyncSession, rollout: Rollout, plan: RolloutPlan, row: RolloutServer, server: Server
    ) -> None:
        """How far one server is."""
        now = self._context.clock.now()
        task = await session.get(ServerTask, row.task_id or 0)
        if task is None:
            row.status, row.error, row.completed_at = store.FAILED, "Its task is gone.", now
            return
        if row.status == store.ORDERED:
            if task.completed_at is None:
                return
            if task.status != "completed":
                said = str((task.error or {}).get("message", task.status))
                row.status, row.error, row.completed_at = store.FAILED, said[:MAX_ERROR], now
                return
            row.status = store.WATCHING
        self._watch(rollout, plan, row, server, task)

    def _watch(self, rollout: Rollout, plan: RolloutPlan, row: RolloutServer, server: Server, task: ServerTask) -> None:
        verb, now_s = verb_of(rollout), self._context.clock.monotonic_s()
        order = msgspec.convert(plan.order, verb.body)
        answered = task.response.get("version") if isinstance(task.response, dict) else None
        wanted = str(answered or getattr(order, "version", ""))
        sight = self._sight(server, task.completed_at)
        key = (rollout.id, row.server_id)
        watch = self._watches.setdefault(key, Watch(begun_s=now_s))
        verdict = judge(
            watch,
            sight,
            trouble_of(verb.name, wanted, sight),
            now_s,
            watch_s=plan.watch_s,
            settle_s=settle_s(order, self._settle_s),
        )
        row.error = verdict.reason
        if verdict.status == store.WATCHING:
            return
        row.status, row.completed_at = verdict.status, self._context.clock.now()
        self._watches.pop(key, None)

    def _sight(self, server: Server, done_at: datetime | None) -> Sight:
        presence = self._context.presence
        seen = presence.get(server.slug)
        fresh = seen is not None and (done_at is None or seen.received_at_ms > done_at.timestamp() * 1000)
        return Sight(presence.is_online(server.slug), seen.beat if seen is not None else None, fresh)

    def _settle(self, session: AsyncSession, rollout: Rollout, rows: list[tuple[RolloutServer, Server]]) -> None:
        """Pauses a rollout with a failed server; completes one without a server to come."""
        if rollout.status != store.RUNNING:
            return
        now = self._context.clock.now()
        failed = [(row, server) for row, server in rows if row.status == store.FAILED]
        if failed:
            row, server = failed[0]
            rollout.status, rollout.error = store.PAUSED, f"{server.name}: {row.error}"[:MAX_ERROR]
        elif all(row.status in {store.HEALTHY, store.SKIPPED} for row, _ in rows):
            skipped_count = sum(row.status == store.SKIPPED for row, _ in rows)
            rollout.status, rollout.completed_at = store.COMPLETED, now
            rollout.error = f"{skipped_count} of {len(rows)} servers were left out." if skipped_count else ""
        else:
            return
        _log.info("rollout moved", rollout_id=rollout.id, status=rollout.status, reason=rollout.error)
        details = {"rollout_id": rollout.id, "verb": rollout.verb, "reason": rollout.error}
        note_event(session, f"rollout_{rollout.status}", now, subject=rollout.verb, details=details)


def _stopped_by_failure(rollout: Rollout, rows: list[tuple[RolloutServer, Server]]) -> bool:
    """Whether a server of it failed, so that nobody else is ordered in the same step."""
    return rollout.status == store.RUNNING and any(row.status == store.FAILED for row, _ in rows)
