"""Tasks with a browser."""

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from xfleet_controller.panel.store import server_names
from xfleet_controller.panel.views import MAX_PAGE, OptionView, PagingView
from xfleet_controller.panel.visit import Visit
from xfleet_controller.tasks.present import detail_view, row_view
from xfleet_controller.tasks.service import get_task, list_tasks
from xfleet_controller.tasks.views import TasksPageView

PAGE_SIZE = 50
STATUSES = ("pending", "running", "completed", "degraded", "failed", "expired")


@get("/tasks", include_in_schema=False)
async def show_tasks(
    visit: NamedDependency[Visit], status: FromQuery[str] = "", page: FromQuery[int] = 1
) -> Response[bytes]:
    """The tasks, newest first, by status and server."""
    status = status if status in STATUSES else ""
    server_id = visit.shell.server_id
    page = min(max(1, page), MAX_PAGE)
    found = await list_tasks(
        visit.context, visit.actor, server_id=server_id, status=status, page=page, page_size=PAGE_SIZE
    )
    async with visit.context.database.read() as session:
        names = await server_names(session)
    tasks = TasksPageView(
        rows=tuple(row_view(task, names) for task in found.rows),
        paging=PagingView(page=page, page_size=PAGE_SIZE, total=found.total),
        statuses=tuple(OptionView(value=word, label=word.capitalize()) for word in STATUSES),
        servers=tuple(OptionView(value=str(server_id), label=name) for server_id, name in names.items()),
        status=status,
        server=str(server_id or ""),
    )
    return visit.page("tasks/index.html", tasks=tasks, live_url=visit.live_url("tasks"))


@get("/tasks/{task_id:int}", include_in_schema=False)
async def show_task(visit: NamedDependency[Visit], task_id: FromPath[int]) -> Response[bytes]:
    """One task in full."""
    task = await get_task(visit.context, visit.actor, task_id)
    async with visit.context.database.read() as session:
        names = await server_names(session)
    return visit.dialog("tasks/_detail.html", "Task", task=detail_view(task, names))
