"""The dispatcher brings every server to its desired state: one order in flight each, the difference where it can.

It is woken by the outbox when something changed and by heartbeats when a server is not where it should be. A lease on
the revision row keeps a second controller from sending to the same server at the same time.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.apply import APPLY, ApplyOrder, ApplyReport
from xfleet_contracts.codec import canonical, sha256_hex
from xfleet_contracts.desired_state import Difference, StatePoint
from xfleet_contracts.errors import Refusal, RemoteRefusal
from xfleet_contracts.heartbeat import Heartbeat
from xfleet_controller.bus import AgentOffline, AgentTimeout, Commander
from xfleet_controller.context import Context
from xfleet_controller.servers import outcome
from xfleet_controller.servers.difference import make_order, target_of
from xfleet_controller.servers.group import GroupWriter
from xfleet_controller.servers.models import Server, ServerRevision, StatePointRow
from xfleet_controller.servers.recovery import MOST_AHEAD_COUNT, holds_the_unknown, recover
from xfleet_controller.tasks import store as tasks
from xfleet_runtime.backoff import Backoff
from xfleet_runtime.ids import new_id
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
LEASE = timedelta(seconds=60)
AT_ONCE_COUNT = 64
"""Servers that are driven at the same time."""
ORDERS_IN_A_ROW = 8
APPLY_TIMEOUT_S = 15.0
RETRY_FIRST_S = 0.5
RETRY_MOST_S = 30.0
LEASED_S = 1.0
LOOK_AGAIN = 0
"""No server has this id: it asks for all servers to be read again."""


@dataclass(kw_only=True)
class Plan:
    """One order about to be sent."""

    server_id: int
    sid: str
    target: StatePoint
    order: ApplyOrder
    command_id: str


@dataclass(kw_only=True)
class AskFirst:
    """The agent holds a state this database never had: what only it knows is kept before anything is sent."""

    sid: str
    held: StatePoint


class Dispatcher:
    """Drives servers that are not where they should be."""

    def __init__(self, context: Context, commander: Commander) -> None:
        self._context = context
        self._commander = commander
        self._owner = new_id()
        self._woken: asyncio.Queue[int] = asyncio.Queue()
        self._dirty: set[int] = set()
        self._busy: set[int] = set()
        self._ids: dict[str, int] = {}
        self._targets: dict[int, StatePoint] = {}
        self._told_bases: dict[int, StatePoint] = {}
        self._backoffs: dict[int, Backoff] = {}
        self._wholes: set[int] = set()
        self._sent: dict[int, tuple[str, str]] = {}
        self._asked: dict[int, StatePoint] = {}
        """Unknown points whose agents were asked already what they hold."""
        self._new_instances: set[int] = set()
        """Servers whose agent process is new: it may take what the last one would not."""
        self._writer = GroupWriter(context.database)
        context.presence.on_beat.append(self.on_beat)
        context.presence.on_instance.append(self.on_instance)

    def wake(self, server_id: int) -> None:
        """The server may not be where it should be."""
        self._dirty.add(server_id)
        if server_id not in self._busy:
            self._woken.put_nowait(server_id)

    def on_beat(self, sid: str, beat: Heartbeat) -> None:
        """A beat tells where the server is; a wrong place wakes."""
        server_id = self._ids.get(sid)
        if server_id is None:
            self._woken.put_nowait(LOOK_AGAIN)
            return
        self._told_bases[server_id] = StatePoint(revision=beat.wanted_revision, digest=beat.wanted_digest)
        if self._targets.get(server_id) != self._told_bases[server_id]:
            self.wake(server_id)

    def on_instance(self, sid: str, _beat: Heartbeat) -> None:
        """Another agent process speaks for this server."""
        server_id = self._ids.get(sid)
        if server_id is not None:
            self._new_instances.add(server_id)
            self.wake(server_id)

    async def run(self) -> None:
        """Drives whoever is woken, for ever."""
        self._busy.clear()
        await self._start_over()
        slots = asyncio.Semaphore(AT_ONCE_COUNT)
        async with asyncio.TaskGroup() as group:
            while True:
                server_id = await self._woken.get()
                if server_id == LOOK_AGAIN:
                    await self._start_over()
                    continue
                if server_id in self._busy or server_id not in self._dirty:
                    continue
                self._busy.add(server_id)
                await slots.acquire()
                group.create_task(self._drive(server_id, slots))

    async def _start_over(self) -> None:
        async with self._context.database.read() as session:
            rows = await session.execute(
                select(Server.slug, ServerRevision).join(ServerRevision, ServerRevision.server_id == Server.id)
            )
            for sid, row in rows:
                self._ids[sid] = row.server_id
                self._targets[row.server_id] = target_of(row)
                if (row.wanted_revision, row.wanted_digest) != (row.desired_revision, row.desired_digest):
                    self.wake(row.server_id)

    async def _drive(self, server_id: int, slots: asyncio.Semaphore) -> None:
        again_s: float | None = None
        try:
            again_s = await self._bring(server_id)
        except Exception:  # noqa: BLE001  one server's bug must not stop the others
            _log.exception("dispatching failed", server_id=server_id, error_id=new_id()[-8:])
            again_s = RETRY_MOST_S
        finally:
            slots.release()
            self._busy.discard(server_id)
            if again_s is not None:
                self._dirty.add(server_id)
                asyncio.get_running_loop().call_later(again_s, self._woken.put_nowait, server_id)
            elif server_id in self._dirty:
                self._woken.put_nowait(server_id)

    async def _bring(self, server_id: int) -> float | None:  # noqa: C901, PLR0911  one per outcome
        """Sends until the server is there; seconds after which to try again, None when there is nothing to do."""
        base: StatePoint | None = self._told_bases.get(server_id)
        for _ in range(ORDERS_IN_A_ROW):
            self._dirty.discard(server_id)
            plan = await self._plan(server_id, base)
            if plan is None:
                self._backoffs.pop(server_id, None)
                return None
            if isinstance(plan, float):
                return plan
            try:
                report = await self._commander.request(
                    plan.sid, APPLY, plan.order, ApplyReport, timeout_s=APPLY_TIMEOUT_S, command_id=plan.command_id
                )
            except AgentOffline as refusal:
                await self._put_back(plan, refusal)
                return None if not self._context.presence.is_online(plan.sid) else self._later_s(server_id)
            except AgentTimeout as refusal:
                await self._put_back(plan, refusal)
                return self._later_s(server_id)
            except RemoteRefusal as refusal:
                self._sent.pop(server_id, None)  # answered: under the same id the agent would only repeat its no
                if refusal.remote_code in outcome.DEFINITE:
                    await outcome.note_refusal(self._context, plan.server_id, plan.target, refusal, self._owner)
                    return None
                if refusal.remote_code == outcome.XRAY_STOPPED and self._told_bases.get(server_id) == plan.target:
                    await outcome.note_kept(self._context, plan.server_id, plan.target, self._owner)
                    return None
                await self._put_back(plan, refusal)
                if refusal.remote_code not in outcome.ELSEWHERE:
                    return self._later_s(server_id)
                base = self._corrected(plan, refusal)
                continue
            self._told_bases[server_id] = base = report.point
            self._sent.pop(server_id, None)
            if await self._note(plan, report):
                self._targets[server_id] = report.point
                self._backoffs.pop(server_id, None)
                return None
        return self._later_s(server_id)

    async def _note(self, plan: Plan, report: ApplyReport) -> bool:
        """Whether the server is where it should be by now."""
        now = self._context.clock.now()
        there = await self._writer.do(
            plan.server_id,
            lambda session: outcome.note_report(session, plan.server_id, plan.sid, report, self._owner, now),
        )
        self._context.bell.ring()
        self._context.presence.touch(plan.sid)
        return there

    def _later_s(self, server_id: int) -> float:
        return self._backoffs.setdefault(server_id, Backoff(RETRY_FIRST_S, RETRY_MOST_S)).next_s()

    async def _plan(self, server_id: int, told: StatePoint | None) -> Plan | float | None:
        """The next order, seconds to wait when another controller holds the lease, None when nothing is to be sent."""
        plan = await self._look(server_id, told)
        if not isinstance(plan, AskFirst):
            return plan
        try:
            point = await recover(self._context, self._commander, server_id, plan.sid) or plan.held
        except (AgentOffline, AgentTimeout, RemoteRefusal) as refusal:
            _log.info("a server could not be asked what it holds", sid=plan.sid, reason=refusal.text)
            return self._later_s(server_id)
        self._asked[server_id] = self._told_bases[server_id] = point
        plan = await self._look(server_id, point)
        return self._later_s(server_id) if isinstance(plan, AskFirst) else plan

    async def _look(self, server_id: int, told: StatePoint | None) -> Plan | AskFirst | float | None:
        now = self._context.clock.now()
        return await self._writer.do(server_id, lambda session: self._plan_in(session, server_id, told, now))

    async def _plan_in(  # noqa: PLR0911  one per reason
        self, session: AsyncSession, server_id: int, told: StatePoint | None, now: datetime
    ) -> Plan | AskFirst | float | None:
        row = await session.get(ServerRevision, server_id, with_for_update=True)
        server = await session.get(Server, server_id)
        if row is None or server is None:
            return None
        self._ids[server.slug] = server_id
        target = target_of(row)
        if told == target:
            self._targets[server_id] = target
            waiting = await tasks.list_open_until(session, server_id, target.revision)
            if not waiting or not self._context.presence.is_online(server.slug):
                return None
        base = told or StatePoint(revision=row.wanted_revision, digest=row.wanted_digest)
        if row.refused_digest == target.digest and server_id not in self._new_instances:
            self._targets[server_id] = base
            await outcome.fail_refused(session, row, now)
            return None
        if told is None and not self._context.presence.is_online(server.slug):
            self._targets[server_id] = target
            return None
        if row.lease_owner != self._owner and row.lease_until_at is not None and row.lease_until_at > now:
            return LEASED_S
        if self._asked.get(server_id) != base and await holds_the_unknown(session, row, base):
            return AskFirst(sid=server.slug, held=base)
        row.refused_digest = ""
        self._new_instances.discard(server_id)
        order = await self._order(session, row, base, now)
        target = self._targets[server_id] = target_of(row)
        row.lease_owner, row.lease_until_at, row.lease_fence = self._owner, now + LEASE, row.lease_fence + 1
        command_id = self._command_id(server_id, order)
        await tasks.mark_running(session, server_id, target.revision, command_id=command_id, owner=self._owner, now=now)
        return Plan(server_id=server_id, sid=server.slug, target=target, order=order, command_id=command_id)

    async def _order(self, session: AsyncSession, row: ServerRevision, base: StatePoint, now: datetime) -> ApplyOrder:
        """What brings the server from `base` to where it should be; after a restored database that is moved first."""
        vault, target = self._context.vault, target_of(row)
        if base == target:  # it has the state, but its report was lost: what it could not apply is only in there
            return ApplyOrder(difference=Difference(base=base, target=target))
        if base.revision > target.revision + MOST_AHEAD_COUNT:
            _log.warning("a server claims a revision no restore explains", server_id=row.server_id)
            return await make_order(session, vault, row, None, now)
        if base.revision > target.revision or (base.revision == target.revision and base != target):
            row.desired_revision = max(base.revision, row.desired_revision) + 1
            row.changed_at = now
            session.add(
                StatePointRow(
                    server_id=row.server_id, revision=row.desired_revision, digest=row.desired_digest, created_at=now
                )
            )
            _log.warning("a server holds a state this database never had", server_id=row.server_id)
            return await make_order(session, vault, row, None, now)
        whole = row.server_id in self._wholes
        self._wholes.discard(row.server_id)
        return await make_order(session, vault, row, None if whole else base, now)

    def _command_id(self, server_id: int, order: ApplyOrder) -> str:
        """The id of the same order's last try, else a new one."""
        digest = sha256_hex(canonical(order))
        held = self._sent.get(server_id)
        if held is None or held[0] != digest:
            held = self._sent[server_id] = (digest, new_id())
        return held[1]

    def _corrected(self, plan: Plan, refusal: RemoteRefusal) -> StatePoint | None:
        """Where the agent says it is; entities that did not add up are sent whole next time."""
        if refusal.remote_code == outcome.DIGEST_MISMATCH:
            self._wholes.add(plan.server_id)
        point = outcome.point_in(refusal)
        if point is not None:
            self._told_bases[plan.server_id] = point
        return point

    async def _put_back(self, plan: Plan, refusal: Refusal) -> None:
        async with self._context.database.write() as session:
            await tasks.mark_waiting(session, plan.server_id, {"code": refusal.body().code, "message": refusal.text})
            await session.execute(
                update(ServerRevision)
                .where(
                    ServerRevision.server_id == plan.server_id,
                    or_(ServerRevision.lease_owner == self._owner, ServerRevision.lease_owner == ""),
                )
                .values(lease_owner="", lease_until_at=None)
            )
