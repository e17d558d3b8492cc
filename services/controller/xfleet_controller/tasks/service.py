"""Tasks: what was ordered from servers and what became of it."""

from collections.abc import Sequence
from typing import NamedTuple

from xfleet_contracts.commands import WEIGHTS
from xfleet_controller.audit.store import note
from xfleet_controller.auth.rights import Actor, authorize
from xfleet_controller.context import Context
from xfleet_controller.errors import Conflict, NotFound
from xfleet_controller.tasks import store
from xfleet_controller.tasks.models import ServerTask
from xfleet_controller.tasks.store import TaskFilter

LOOK_EVERY_S = 1.0
MAX_WAIT_S = 25.0
ORDER, HEAVY_ORDER = "servers.order.write", "servers.order.heavy"


class TaskPage(NamedTuple):
    """A page of tasks."""

    rows: Sequence[ServerTask]
    total: int


class TaskNotPending(Conflict):
    """Only an order that was not sent yet can be taken back."""

    code = "task_not_pending"
    message = "This order was already sent, or is a change of state: it cannot be taken back."


async def list_tasks(
    context: Context, actor: Actor, wanted: TaskFilter | None = None, *, page: int = 1, page_size: int = 25
) -> TaskPage:
    """Tasks, newest first."""
    authorize(actor, "tasks.read")
    async with context.database.read() as session:
        rows, total = await store.list_tasks(
            session, wanted or TaskFilter(), offset=(page - 1) * page_size, limit=page_size
        )
    return TaskPage(rows, total)


async def list_operations(context: Context, actor: Actor) -> list[str]:
    """Which operations the list can be narrowed to."""
    authorize(actor, "tasks.read")
    async with context.database.read() as session:
        return await store.list_operations(session)


async def cancel(context: Context, actor: Actor, task_id: int) -> ServerTask:
    """Takes back an order that waits. Raises `NotFound` or `TaskNotPending`."""
    authorize(actor, ORDER)
    task = await get_task(context, actor, task_id)
    if WEIGHTS.get(task.verb) == "heavy":
        authorize(actor, HEAVY_ORDER)
    now = context.clock.now()
    async with context.database.write() as session:
        error = {"code": "cancelled", "message": f"Taken back by {actor.label}."}
        if not await store.cancel_pending(session, task_id, now, error):
            raise TaskNotPending
        note(session, actor, "cancel_task", "task", str(task_id), now, name=task.operation)
    context.bell.ring()
    context.pulse.ring()
    return await get_task(context, actor, task_id)


async def get_task(context: Context, actor: Actor, task_id: int) -> ServerTask:
    """One task. Raises `NotFound`."""
    authorize(actor, "tasks.read")
    async with context.database.read() as session:
        task = await session.get(ServerTask, task_id)
    if task is None:
        raise NotFound("There is no such task.")
    return task


async def wait_for(context: Context, task_ids: Sequence[int], wait_s: float) -> Sequence[ServerTask]:
    """The tasks once all are done, or as they are after `wait_s`."""
    clock = context.clock
    until_s = clock.monotonic_s() + min(max(wait_s, 0), MAX_WAIT_S)
    while True:
        async with context.database.read() as session:
            tasks = await store.list_by_ids(session, task_ids)
        left_s = until_s - clock.monotonic_s()
        if left_s <= 0 or all(task.status in store.DONE for task in tasks):
            return tasks
        await context.bell.wait(min(left_s, LOOK_EVERY_S))
