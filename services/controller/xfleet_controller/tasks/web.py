"""Tasks with a browser."""

from typing import Any

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from xfleet_controller.panel.store import server_names
from xfleet_controller.panel.views import MAX_PAGE, OptionView, PagingView
from xfleet_controller.panel.visit import Visit
from xfleet_controller.tasks import service
from xfleet_controller.tasks.present import detail_view, operation_words, row_view
from xfleet_controller.tasks.store import STATUSES, TaskFilter
from xfleet_controller.tasks.views import TasksPageView

PAGE_SIZE = 50
MAX_WORD = 100


@get("/tasks", include_in_schema=False)
async def show_tasks(
    visit: NamedDependency[Visit],
    status: FromQuery[str] = "",
    operation: FromQuery[str] = "",
    by: FromQuery[str] = "",
    trace: FromQuery[str] = "",
    page: FromQuery[int] = 1,
) -> Response[bytes]:
    """The tasks, newest first, by status, server, operation, who ordered them, and trace."""
    status = status if status in STATUSES else ""
    server_id = visit.shell.server_id
    page = min(max(1, page), MAX_PAGE)
    by, trace = by.strip()[:MAX_WORD], trace.strip()[:MAX_WORD]
    operations = await service.list_operations(visit.context, visit.actor)
    operation = operation if operation in operations else ""
    wanted = TaskFilter(server_id=server_id, status=status, operation=operation, actor=by, trace_id=trace)
    found = await service.list_tasks(visit.context, visit.actor, wanted, page=page, page_size=PAGE_SIZE)
    async with visit.context.database.read() as session:
        names = await server_names(session)
    tasks = TasksPageView(
        rows=tuple(row_view(task, names) for task in found.rows),
        paging=PagingView(page=page, page_size=PAGE_SIZE, total=found.total),
        statuses=tuple(OptionView(value=word, label=word.capitalize()) for word in STATUSES),
        servers=tuple(OptionView(value=str(server_id), label=name) for server_id, name in names.items()),
        operations=tuple(OptionView(value=word, label=operation_words(word)) for word in operations),
        status=status,
        server=str(server_id or ""),
        operation=operation,
        by=by,
        trace=trace,
    )
    return visit.page("tasks/index.html", tasks=tasks, live_url=visit.live_url("tasks"))


@get("/tasks/{task_id:int}", include_in_schema=False)
async def show_task(visit: NamedDependency[Visit], task_id: FromPath[int]) -> Response[bytes]:
    """One task in full."""
    task = await service.get_task(visit.context, visit.actor, task_id)
    async with visit.context.database.read() as session:
        names = await server_names(session)
    return visit.dialog("tasks/_detail.html", "Task", task=detail_view(task, names))


@post("/tasks/{task_id:int}/cancel", include_in_schema=False)
async def cancel_task(visit: NamedDependency[Visit], task_id: FromPath[int]) -> Response[Any]:
    """Takes back an order that waits."""
    await service.cancel(visit.context, visit.actor, task_id)
    return visit.done("/tasks", "Order taken back", "tasks-changed")
