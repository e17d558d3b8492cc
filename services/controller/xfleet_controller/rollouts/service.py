"""Rollouts: upgrade many servers in waves; the next wave starts when the one before is well."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from xfleet_contracts.installs import AgentUpdate
from xfleet_controller.audit.store import note
from xfleet_controller.auth.rights import Actor, authorize
from xfleet_controller.context import Context
from xfleet_controller.errors import Conflict, NotFound, invalid
from xfleet_controller.orders.answers import kept
from xfleet_controller.orders.bodies import check_body
from xfleet_controller.orders.verbs import Verb, get_verb
from xfleet_controller.rollouts import store
from xfleet_controller.rollouts.plan import DEFAULT_WAVES, MAX_WAVES, ROLLABLE, is_size, plan_waves
from xfleet_controller.servers.models import Rollout, RolloutServer, Server
from xfleet_controller.tasks.store import cancel_pending
from xfleet_controller.trace import current_trace_id, new_trace_id

READ, WRITE = "fleet.read", "fleet.rollouts"
SHORTEST_WATCH_S, LONGEST_WATCH_S = 1, 3600


class RolloutNew(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An upgrade to be made."""

    verb: str
    """agent.update, xray.install or geofiles.update."""
    body: dict[str, Any]
    """As the order for one server takes it."""
    server_ids: list[int] = []
    """In the order in which they come to their turn; empty: all servers, or all with the tag."""
    tag: str = ""
    waves: list[str] = msgspec.field(default_factory=lambda: list(DEFAULT_WAVES))
    """Sizes: a number, a share such as `10%`, or `rest`."""
    watch_s: int = 30
    """How long an upgraded server must be well before the next wave starts."""


class RolloutPlan(msgspec.Struct, kw_only=True):
    """What `Rollout.body` holds."""

    order: dict[str, Any]
    waves: list[str]
    watch_s: int
    trace_id: str = ""


class RolloutActive(Conflict):
    """A server takes part in one rollout at a time."""

    code = "rollout_active"
    message = "One of these servers is part of a rollout that is not over."


class RolloutOver(Conflict):
    """What is asked fits no rollout in this status."""

    code = "rollout_over"
    message = "The rollout is not in a status in which this can be done."


class RolloutView(NamedTuple):
    """A rollout with its servers, or with how many of them are in which status."""

    rollout: Rollout
    plan: RolloutPlan
    counts: dict[str, int]
    servers: Sequence[tuple[RolloutServer, Server]] = ()


async def create(context: Context, actor: Actor, new: RolloutNew) -> RolloutView:
    """Starts a rollout. Raises `Invalid`, `NotFound` or `RolloutActive`."""
    authorize(actor, WRITE)
    body = _checked(new)
    async with context.database.write() as session:
        servers = await _servers_of(session, new)
        ids = list(dict.fromkeys(new.server_ids)) or [server.id for server in servers]
        busy = await store.find_busy(session, ids)
        if busy is not None:
            raise RolloutActive(rollout_id=busy[0], server_id=busy[1])
        now = context.clock.now()
        plan = RolloutPlan(
            order=msgspec.to_builtins(body),
            waves=new.waves,
            watch_s=new.watch_s,
            trace_id=current_trace_id() or new_trace_id(),
        )
        rollout = Rollout(
            verb=new.verb,
            body=msgspec.to_builtins(plan),
            status=store.RUNNING,
            actor=actor.label[:100],
            created_at=now,
            updated_at=now,
        )
        session.add(rollout)
        await session.flush()
        for wave, members in enumerate(plan_waves(ids, new.waves), 1):
            session.add_all(RolloutServer(rollout_id=rollout.id, server_id=each, wave=wave) for each in members)
        after = {"order": kept(body), "servers_count": len(ids), "waves": new.waves}
        note(session, actor, "create_rollout", "rollout", str(rollout.id), now, name=new.verb, after=after)
    _wake(context)
    return await get(context, actor, rollout.id)


async def list_rollouts(
    context: Context, actor: Actor, *, page: int = 1, page_size: int = 25
) -> tuple[list[RolloutView], int]:
    """Rollouts, newest first, and how many there are."""
    authorize(actor, READ)
    async with context.database.read() as session:
        rows, total = await store.list_rollouts(session, offset=(page - 1) * page_size, limit=page_size)
        counts = await store.count_by_status(session, [row.id for row in rows])
    return [RolloutView(row, plan_of(row), counts.get(row.id, {})) for row in rows], total


async def get(context: Context, actor: Actor, rollout_id: int) -> RolloutView:
    """One rollout with its servers. Raises `NotFound`."""
    authorize(actor, READ)
    async with context.database.read() as session:
        rollout = await session.get(Rollout, rollout_id)
        if rollout is None:
            raise NotFound("There is no such rollout.")
        servers = await store.list_servers(session, rollout_id)
        counts = await store.count_by_status(session, [rollout_id])
    return RolloutView(rollout, plan_of(rollout), counts.get(rollout_id, {}), servers)


async def pause(context: Context, actor: Actor, rollout_id: int) -> RolloutView:
    """No further server is ordered until it is resumed. Raises `NotFound` or `RolloutOver`."""
    return await _move(context, actor, rollout_id, "pause_rollout", (store.RUNNING,), store.PAUSED)


async def resume(context: Context, actor: Actor, rollout_id: int) -> RolloutView:
    """Goes on; servers that failed or were skipped get another turn. Raises `NotFound` or `RolloutOver`."""
    return await _move(context, actor, rollout_id, "resume_rollout", (store.PAUSED,), store.RUNNING)


async def cancel(context: Context, actor: Actor, rollout_id: int) -> RolloutView:
    """No further server is ordered, ever; what runs, runs on. Raises `NotFound` or `RolloutOver`."""
    return await _move(context, actor, rollout_id, "cancel_rollout", store.ACTIVE, store.CANCELLED)


def plan_of(rollout: Rollout) -> RolloutPlan:
    """What it does and how."""
    return msgspec.convert(rollout.body, RolloutPlan)


def verb_of(rollout: Rollout) -> Verb[Any, Any]:
    """What is ordered from each server."""
    return get_verb(rollout.verb)


async def _move(
    context: Context, actor: Actor, rollout_id: int, action: str, allowed: Sequence[str], status: str
) -> RolloutView:
    authorize(actor, WRITE)
    now = context.clock.now()
    async with context.database.write() as session:
        rollout = await session.get(Rollout, rollout_id, with_for_update=True)
        if rollout is None:
            raise NotFound("There is no such rollout.")
        if rollout.status not in allowed:
            raise RolloutOver(status=rollout.status)
        rollout.status, rollout.updated_at = status, now
        rollout.error = "" if status == store.RUNNING else f"{action.partition('_')[0].capitalize()}d by {actor.name}."
        for row, _server in await store.list_servers(session, rollout_id):
            if status == store.RUNNING and row.status in {store.FAILED, store.SKIPPED}:
                row.status, row.error, row.task_id = store.WAITING, "", None
                row.started_at = row.completed_at = None
            if status == store.CANCELLED and row.status == store.WAITING:
                row.status, row.error, row.completed_at = store.SKIPPED, "The rollout was cancelled.", now
            if status == store.CANCELLED and row.status == store.ORDERED and row.task_id is not None:
                await cancel_pending(
                    session, row.task_id, now, {"code": "cancelled", "message": "The rollout was cancelled."}
                )
        if status == store.CANCELLED:
            rollout.error = f"Cancelled by {actor.name}."
            rollout.completed_at = now
        note(session, actor, action, "rollout", str(rollout_id), now, name=rollout.verb)
    _wake(context)
    return await get(context, actor, rollout_id)


def _checked(new: RolloutNew) -> Any:
    """The order for each server. Raises `Invalid`."""
    if new.verb not in ROLLABLE:
        raise invalid("verb", f"One of {', '.join(ROLLABLE)}.", "unknown_verb")
    try:
        body = msgspec.convert(new.body, get_verb(new.verb).body)
    except msgspec.ValidationError as error:
        raise invalid("body", str(error)) from error
    check_body(body)
    if not 0 < len(new.waves) <= MAX_WAVES or not all(map(is_size, new.waves)):
        raise invalid("waves", "Sizes such as 1, 10% or rest.", "bad_waves")
    if not SHORTEST_WATCH_S <= new.watch_s <= LONGEST_WATCH_S:
        raise invalid("watch_s", f"{SHORTEST_WATCH_S} to {LONGEST_WATCH_S} seconds.")
    return body


async def _servers_of(session: Any, new: RolloutNew) -> list[Server]:
    if new.server_ids:
        servers = await store.list_known(session, new.server_ids)
        missing = set(new.server_ids) - {server.id for server in servers}
        if missing:
            raise NotFound("There is no such server.", server_ids=sorted(missing)[:20])
        return servers
    servers = [server for server in await store.list_all(session) if not new.tag or new.tag in server.tags]
    if not servers:
        raise invalid("server_ids", "There is no server to upgrade.", "no_server")
    return servers


def settle_s(order: Any, base_s: float) -> float:
    """How long a server may take to be well at all."""
    return base_s + (order.probation_s if isinstance(order, AgentUpdate) else 0)


def _wake(context: Context) -> None:
    context.order_wake.set()
    context.pulse.ring()
