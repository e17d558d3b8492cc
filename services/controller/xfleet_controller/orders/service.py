"""Orders: reads go straight to the server; changes become tasks that are carried out when it can.

Every order takes a right, counts against the admin's limit at this server, and carries the trace of the request.
"""

from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import Any, BinaryIO, NamedTuple, TypeVar

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.care import Restored
from xfleet_contracts.codec import canonical
from xfleet_contracts.errors import Refusal
from xfleet_contracts.message import Message
from xfleet_controller.audit.store import note
from xfleet_controller.auth.rights import Actor, authorize
from xfleet_controller.context import Context
from xfleet_controller.errors import BusUnavailable, Conflict, NotFound, invalid
from xfleet_controller.orders import store, verbs
from xfleet_controller.orders.answers import AgentRefused, kept
from xfleet_controller.orders.bodies import check_body
from xfleet_controller.orders.connector import Backup, ServerConnector
from xfleet_controller.orders.verbs import ORDERS, UnknownVerb, Verb, get_verb
from xfleet_controller.servers.models import Server
from xfleet_controller.tasks.models import ServerTask
from xfleet_controller.trace import current_trace_id, new_trace_id
from xfleet_runtime.ids import new_id

Body = TypeVar("Body", bound=Message)
Answer = TypeVar("Answer")
DEADLINE = timedelta(minutes=10)
TRANSFER_LEASE = timedelta(seconds=180)
MAX_OPEN = 50
MAX_ID = 64


class OrderIdReused(Conflict):
    """The asker's id already names another order."""

    code = "reused_id"
    message = "This id was already used for another order."


class TooManyWaiting(Refusal):
    """A server that does not come back is not given orders without end."""

    code = "rate_limited"
    status = 429
    message = "Too many orders already wait for this server."


class Ordered(NamedTuple):
    """An order that was given."""

    task: ServerTask
    joined: bool
    """The same order was already waiting; this is that one."""
    online: bool
    """Whether the server is heard now; otherwise the order waits, until its deadline."""


async def read(context: Context, actor: Actor, server_id: int, verb: Verb[Body, Answer], body: Body) -> Answer:
    """What the server answers now. Raises what `ServerConnector` does, `Invalid`, `NotFound`, `TooManyOrders`."""
    connector = connect(context, await _admitted(context, actor, server_id, verb, body))
    return await connector.ask(verb, body)


async def order(
    context: Context, actor: Actor, server_id: int, verb: Verb[Body, Answer], body: Body, *, order_id: str = ""
) -> Ordered:
    """Orders a change: a task, or the one that already waits for the same. The same `order_id` is the same order."""
    server = await _admitted(context, actor, server_id, verb, body)
    async with context.database.write() as session:
        task, joined = await add_order(session, context, actor, server.id, verb, body, order_id=order_id)
    context.order_wake.set()
    context.pulse.ring()
    return Ordered(task, joined, context.presence.is_online(server.slug))


async def add_order(
    session: AsyncSession,
    context: Context,
    actor: Actor,
    server_id: int,
    verb: Verb[Body, Answer],
    body: Body,
    *,
    order_id: str = "",
) -> tuple[ServerTask, bool]:
    """The order as a task within this transaction, and whether it was there before. Wake the runner after it."""
    if verb.name not in ORDERS:
        raise UnknownVerb(verb=verb.name)
    server = await store.lock_server(session, server_id)
    if server is None:
        raise NotFound("There is no such server.")
    same = await _same(session, context, server_id, verb, body, order_id[:MAX_ID])
    if same is not None:
        return same, True
    if await store.count_open(session, server_id) >= MAX_OPEN:
        raise TooManyWaiting(retry_after_s=60)
    now = context.clock.now()
    task = _task(server_id, verb, body, actor, now)
    task.command_id = order_id[:MAX_ID] or new_id()
    task.order_sealed = context.vault.seal_value(record_of(task), body)
    task.deadline_at = now + DEADLINE
    session.add(task)
    _note(session, actor, verb, server, now, kept(body))
    await session.flush()
    return task, False


def connect(context: Context, server: Server) -> ServerConnector:
    """The way to one server. Raises `BusUnavailable`."""
    if context.commander is None or context.transfers is None or context.bus is None:
        raise BusUnavailable
    if not context.bus.commands.connected:
        raise BusUnavailable
    return ServerConnector(server.slug, context.commander, context.transfers)


async def order_by_name(
    context: Context, actor: Actor, server_id: int, verb_name: str, body: dict[str, Any], *, order_id: str = ""
) -> Ordered:
    """As `order`, for a verb and a body that came as words. Raises `UnknownVerb` or `Invalid` too."""
    verb = get_verb(verb_name)
    if verb.name not in ORDERS:
        raise UnknownVerb(verb=verb_name)
    try:
        decoded = msgspec.convert(body, verb.body)
    except msgspec.ValidationError as error:
        raise invalid("body", str(error)) from error
    return await order(context, actor, server_id, verb, decoded, order_id=order_id)


async def backup(context: Context, actor: Actor, server_id: int) -> tuple[Server, Backup]:
    """An archive of what only that machine has; whoever gets it closes its file."""
    server = await _admitted(context, actor, server_id, verbs.BACKUP, None)
    connector = connect(context, server)
    task = await _begin(context, actor, server, verbs.BACKUP)
    made = await _within(context, task, connector.backup(command_id=task.command_id))
    await _end(context, task.id, "completed", response=kept(made.sent))
    return server, made


async def restore(context: Context, actor: Actor, server_id: int, file: BinaryIO) -> Restored:
    """Has the server put back what is in an archive it made before."""
    server = await _admitted(context, actor, server_id, verbs.RESTORE, None)
    connector = connect(context, server)
    task = await _begin(context, actor, server, verbs.RESTORE)
    done = await _within(context, task, connector.restore(file, command_id=task.command_id))
    await _end(context, task.id, "completed", response=kept(done))
    return done


async def _within(context: Context, task: ServerTask, work: Awaitable[Answer]) -> Answer:
    """The outcome; what goes wrong ends the task too."""
    try:
        return await work
    except Refusal as refusal:
        await _end(context, task.id, "failed", error=error_of(refusal))
        raise


def record_of(task: ServerTask) -> str:
    """Name under which an order's body is sealed."""
    return f"order:{task.server_id}:{task.command_id}"


def error_of(refusal: Refusal) -> dict[str, Any]:
    """A refusal as tasks keep it."""
    details = kept(refusal.details.get("details", {}) if isinstance(refusal, AgentRefused) else refusal.details)
    return {"code": refusal.code, "message": refusal.text[:1000]} | ({"details": details} if details else {})


async def _admitted(
    context: Context, actor: Actor, server_id: int, verb: Verb[Any, Any], body: Message | None
) -> Server:
    """The server, once the actor may order this from it."""
    authorize(actor, verb.action)
    if body is not None:
        check_body(body)
    async with context.database.read() as session:
        server = await session.get(Server, server_id)
    if server is None:
        raise NotFound("There is no such server.")
    context.order_limits.take(str(actor.admin_id or actor.label), server_id, verb.weight)
    return server


async def _same(
    session: AsyncSession, context: Context, server_id: int, verb: Verb[Any, Any], body: Message, order_id: str
) -> ServerTask | None:
    raw = canonical(body)
    if order_id:
        given = await store.find_by_command(session, server_id, order_id)
        if given is not None and (given.verb != verb.name or given.request != kept(body)):
            raise OrderIdReused
        return given
    for task in await store.list_pending(session, server_id, verb.name):
        if task.order_sealed is not None and context.vault.open(record_of(task), task.order_sealed) == raw:
            return task
    return None


def _task(server_id: int, verb: Verb[Any, Any], body: Any, actor: Actor, now: datetime) -> ServerTask:
    return ServerTask(
        server_id=server_id,
        operation=verb.name,
        verb=verb.name,
        status="pending",
        request=kept(body) or {},
        response={},
        actor=actor.label[:100],
        trace_id=current_trace_id() or new_trace_id(),
        created_at=now,
    )


def _note(
    session: AsyncSession, actor: Actor, verb: Verb[Any, Any], server: Server, now: datetime, after: object
) -> None:
    note(session, actor, f"order.{verb.name}", "server", str(server.id), now, name=server.name, after=after)


async def _begin(context: Context, actor: Actor, server: Server, verb: Verb[Any, Any]) -> ServerTask:
    """A task for what is carried out within this very request."""
    now = context.clock.now()
    task = _task(server.id, verb, None, actor, now)
    task.status, task.started_at, task.command_id = "running", now, new_id()
    task.lease_owner, task.lease_until_at = task.command_id, now + TRANSFER_LEASE
    async with context.database.write() as session:
        session.add(task)
        _note(session, actor, verb, server, now, None)
    context.pulse.ring()
    return task


async def _end(
    context: Context, task_id: int, status: str, *, response: Any = None, error: dict[str, Any] | None = None
) -> None:
    now = context.clock.now()
    async with context.database.write() as session:
        task = await session.get(ServerTask, task_id)
        if task is None or task.completed_at is not None:
            return
        task.status, task.completed_at, task.error = status, now, error
        task.response = response or {}
        task.lease_until_at = None
        task.took_ms = int((now - (task.started_at or now)).total_seconds() * 1000)
    context.bell.ring()
    context.pulse.ring()
