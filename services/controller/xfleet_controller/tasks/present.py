"""Tasks as views."""

from collections.abc import Mapping
from typing import Any

import msgspec

from xfleet_controller.auth.rights import Actor
from xfleet_controller.context import Context
from xfleet_controller.panel.store import server_names
from xfleet_controller.tasks.models import ServerTask
from xfleet_controller.tasks.service import list_tasks
from xfleet_controller.tasks.views import DegradedView, TaskDetailView, TaskRowView

LATEST_COUNT = 6


def operation_words(operation: str) -> str:
    """`add_client` as `Add client`, `xray.restart` as `Xray restart`."""
    return operation.replace("_", " ").replace(".", " ").capitalize()


def row_view(task: ServerTask, names: Mapping[int, str]) -> TaskRowView:
    """One line of a list."""
    return TaskRowView(
        id=task.id,
        server_name=names.get(task.server_id, ""),
        operation=operation_words(task.operation),
        status=task.status,
        created_at=task.created_at,
        completed_at=task.completed_at,
        error=str((task.error or {}).get("message", "")),
        revision=task.revision,
    )


def detail_view(task: ServerTask, names: Mapping[int, str]) -> TaskDetailView:
    """All that is known about one task; requests are held redacted."""
    error: dict[str, Any] = task.error or {}
    shown = {"request": task.request, "response": task.response, "error": error, "command_id": task.command_id}
    details = msgspec.json.format(msgspec.json.encode({key: value for key, value in shown.items() if value}), indent=2)
    return TaskDetailView(
        row=row_view(task, names),
        degraded=_degraded_of(error),
        error_code=str(error.get("code", "")),
        attempts=task.retry_count + (task.started_at is not None),
        started_at=task.started_at,
        ordered_by=task.actor.removeprefix("admin:"),
        details=details.decode() if details != b"{}" else "",
    )


async def latest_tasks(context: Context, actor: Actor, *, server_id: int | None = None) -> tuple[TaskRowView, ...]:
    """The newest tasks."""
    page = await list_tasks(context, actor, server_id=server_id, page_size=LATEST_COUNT)
    async with context.database.read() as session:
        names = await server_names(session)
    return tuple(row_view(task, names) for task in page.rows)


def _degraded_of(error: Mapping[str, Any]) -> tuple[DegradedView, ...]:
    listed = error.get("degraded")
    if not isinstance(listed, list):
        listed = [error] if error.get("path") else []
    return tuple(
        DegradedView(path=str(each.get("path", "")), code=str(each.get("code", "")), reason=_reason_of(each))
        for each in listed
        if isinstance(each, dict)
    )


def _reason_of(each: Mapping[str, Any]) -> str:
    return str(each.get("reason") or each.get("message") or "")
