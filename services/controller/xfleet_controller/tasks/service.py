"""Tasks: what was ordered from servers and what became of it."""

from collections.abc import Sequence
from typing import NamedTuple

from xfleet_controller.auth.rights import Actor, authorize
from xfleet_controller.context import Context
from xfleet_controller.errors import NotFound
from xfleet_controller.tasks import store
from xfleet_controller.tasks.models import ServerTask

LOOK_EVERY_S = 1.0
MAX_WAIT_S = 25.0


class TaskPage(NamedTuple):
    """A page of tasks."""

    rows: Sequence[ServerTask]
    total: int


async def list_tasks(
    context: Context,
    actor: Actor,
    *,
    server_id: int | None = None,
    status: str = "",
    operation: str = "",
    page: int = 1,
    page_size: int = 25,
) -> TaskPage:
    """Tasks, newest first."""
    authorize(actor, "tasks.read")
    async with context.database.read() as session:
        rows, total = await store.list_tasks(
            session,
            server_id=server_id,
            status=status,
            operation=operation,
            offset=(page - 1) * page_size,
            limit=page_size,
        )
    return TaskPage(rows, total)


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
