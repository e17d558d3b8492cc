"""Tasks as views."""

from collections.abc import Mapping
from typing import Any

import msgspec

from xfleet_controller.auth.rights import Actor
from xfleet_controller.context import Context
from xfleet_controller.panel.store import server_names
from xfleet_controller.tasks.models import ServerTask
from xfleet_controller.tasks.service import list_tasks
from xfleet_controller.tasks.store import OPEN, TaskFilter
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
        took_ms=task.took_ms,
        actor=task.actor.removeprefix("admin:"),
    )


def detail_view(task: ServerTask, names: Mapping[int, str]) -> TaskDetailView:
    """All that is known about one task; requests are held redacted."""
    error: dict[str, Any] = task.error or {}
    return TaskDetailView(
        row=row_view(task, names),
        degraded=_degraded_of(error),
        error_code=str(error.get("code", "")),
        attempts=task.retry_count + (task.started_at is not None),
        started_at=task.started_at,
        ordered_by=task.actor.removeprefix("admin:"),
        trace_id=task.trace_id,
        command_id=task.command_id,
        deadline_at=task.deadline_at if task.status in OPEN else None,
        request=_pretty(task.request),
        response=_pretty(task.response),
        details=_pretty(error.get("details") or ({} if error.get("degraded") else error)),
        cancellable=task.status == "pending" and bool(task.verb),
    )


def _pretty(value: Any) -> str:
    """JSON as people read it; empty for nothing."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() if value else ""


async def latest_tasks(context: Context, actor: Actor, *, server_id: int | None = None) -> tuple[TaskRowView, ...]:
    """The newest tasks."""
    page = await list_tasks(context, actor, TaskFilter(server_id=server_id), page_size=LATEST_COUNT)
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
