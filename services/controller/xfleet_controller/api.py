"""What all of `/api/v1` shares: pages of lists, tasks in answers, waiting for servers."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from litestar.params import QueryParameter

from xfleet_controller.context import Context
from xfleet_controller.tasks import service as tasks
from xfleet_controller.tasks.models import ServerTask

T = TypeVar("T")
BASE = "/api/v1"
Page = Annotated[int, QueryParameter(ge=1, le=1_000_000, description="From 1.")]
PageSize = Annotated[int, QueryParameter(ge=1, le=500, description="Items per page.")]
Search = Annotated[str, QueryParameter(max_length=200, description="Part of a name.")]
Wait = Annotated[
    float, QueryParameter(ge=0, le=tasks.MAX_WAIT_S, description="Seconds to wait for the servers to acknowledge.")
]


class PageOf(msgspec.Struct, Generic[T], kw_only=True):
    """A page of a list."""

    items: Sequence[T]
    total: int
    page: int
    page_size: int


class TaskOut(msgspec.Struct, kw_only=True):
    """What was ordered from a server and what became of it."""

    id: int
    server_id: int
    operation: str
    status: str
    """pending, running, completed, degraded, failed, expired or cancelled."""
    revision: int | None
    error: Any
    """{code, message, path, …} of what went wrong; null when nothing did."""
    actor: str
    retry_count: int
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    took_ms: int | None
    verb: str
    """The verb of an order to the server's agent; empty for a change of state."""
    trace_id: str
    deadline_at: datetime | None


class Changed(msgspec.Struct, kw_only=True):
    """A change without a thing to show."""

    task_ids: list[int]
    tasks: list[TaskOut]
    """As they are after `?wait=`; empty without it."""


def task_out(row: ServerTask) -> TaskOut:
    """A task as the API shows it."""
    return TaskOut(
        id=row.id,
        server_id=row.server_id,
        operation=row.operation,
        status=row.status,
        revision=row.revision,
        error=row.error,
        actor=row.actor,
        retry_count=row.retry_count,
        created_at=row.created_at,
        started_at=row.started_at,
        completed_at=row.completed_at,
        took_ms=row.took_ms,
        verb=row.verb,
        trace_id=row.trace_id,
        deadline_at=row.deadline_at,
    )


async def waited(context: Context, task_ids: list[int], wait_s: float) -> list[TaskOut]:
    """The tasks of a change after waiting; empty when nobody waits."""
    if not wait_s:
        return []
    return [task_out(row) for row in await tasks.wait_for(context, task_ids, wait_s)]
