"""`/api/v1/tasks`."""

from litestar import Controller, get
from litestar.params import FromPath, FromQuery

from xfleet_controller.api import Page, PageOf, PageSize, TaskOut, task_out
from xfleet_controller.edge import TheActor, TheContext
from xfleet_controller.tasks import service


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
        status: FromQuery[str] = "",
        operation: FromQuery[str] = "",
        page: Page = 1,
        page_size: PageSize = 25,
    ) -> PageOf[TaskOut]:
        """Newest first."""
        found = await service.list_tasks(
            context, actor, server_id=server_id, status=status, operation=operation, page=page, page_size=page_size
        )
        return PageOf(items=[task_out(row) for row in found.rows], total=found.total, page=page, page_size=page_size)

    @get("/{task_id:int}", summary="Show a task")
    async def get_task(self, context: TheContext, actor: TheActor, task_id: FromPath[int]) -> TaskOut:
        """One task."""
        return task_out(await service.get_task(context, actor, task_id))
