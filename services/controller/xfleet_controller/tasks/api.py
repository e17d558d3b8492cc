"""`/api/v1/tasks`."""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from litestar import Controller, get, post
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.status_codes import HTTP_200_OK

from xfleet_controller.api import Page, PageOf, PageSize, TaskOut, task_out
from xfleet_controller.edge import TheActor, TheContext
from xfleet_controller.tasks import service
from xfleet_controller.tasks.models import ServerTask
from xfleet_controller.tasks.store import TaskFilter

Since = Annotated[datetime | None, QueryParameter(description="Created at or after this moment; UTC without a zone.")]
Until = Annotated[datetime | None, QueryParameter(description="Created before this moment; UTC without a zone.")]
Word = Annotated[str, QueryParameter(max_length=200)]


class TaskDetailOut(TaskOut, kw_only=True):
    """A task with all that is known about it; without secrets."""

    command_id: str
    request: Any
    response: Any


def task_detail_out(row: ServerTask) -> TaskDetailOut:
    """A task in full."""
    return TaskDetailOut(
        **msgspec.structs.asdict(task_out(row)), command_id=row.command_id, request=row.request, response=row.response
    )


class TaskApi(Controller):
    """What was ordered from servers."""

    path = "/tasks"
    tags = ["tasks"]

    @get(summary="List tasks")
    async def list_tasks(
        self,
        context: TheContext,
        actor: TheActor,
        server_id: FromQuery[int | None] = None,
        status: Word = "",
        operation: Word = "",
        verb: Word = "",
        by: Word = "",
        since: Since = None,
        until: Until = None,
        trace_id: Word = "",
        page: Page = 1,
        page_size: PageSize = 25,
    ) -> PageOf[TaskOut]:
        """Newest first; `by` is an admin's name, `operation` what was done, such as `add_client` or `xray.restart`."""
        wanted = TaskFilter(
            server_id=server_id,
            status=status,
            operation=operation or verb,
            actor=by,
            since=_aware(since),
            until=_aware(until),
            trace_id=trace_id,
        )
        found = await service.list_tasks(context, actor, wanted, page=page, page_size=page_size)
        return PageOf(items=[task_out(row) for row in found.rows], total=found.total, page=page, page_size=page_size)

    @get("/{task_id:int}", summary="Show a task")
    async def get_task(self, context: TheContext, actor: TheActor, task_id: FromPath[int]) -> TaskDetailOut:
        """One task with request and response."""
        return task_detail_out(await service.get_task(context, actor, task_id))

    @post("/{task_id:int}/cancel", summary="Take an order back", status_code=HTTP_200_OK)
    async def cancel(self, context: TheContext, actor: TheActor, task_id: FromPath[int]) -> TaskDetailOut:
        """Only an order that was not sent yet."""
        return task_detail_out(await service.cancel(context, actor, task_id))


def _aware(at: datetime | None) -> datetime | None:
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at
