"""Tasks as the panel shows them."""

from datetime import datetime

import msgspec

from xfleet_controller.panel.views import OptionView, PagingView


class TaskRowView(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the task list."""

    id: int
    server_name: str
    operation: str
    status: str
    """pending, running, completed, degraded, failed, expired or cancelled"""
    created_at: datetime
    completed_at: datetime | None = None
    error: str = ""
    revision: int | None = None
    took_ms: int | None = None
    actor: str = ""

    @property
    def took_s(self) -> float | None:
        """How long it took to carry out; None while it runs."""
        if self.took_ms is not None:
            return self.took_ms / 1000
        return None if self.completed_at is None else (self.completed_at - self.created_at).total_seconds()


class DegradedView(msgspec.Struct, frozen=True, kw_only=True):
    """One thing a server could not apply; its last good version keeps running."""

    path: str
    code: str
    reason: str


class TaskDetailView(msgspec.Struct, frozen=True, kw_only=True):
    """One task with all that is known about it."""

    row: TaskRowView
    degraded: tuple[DegradedView, ...] = ()
    error_code: str = ""
    attempts: int = 0
    started_at: datetime | None = None
    ordered_by: str = ""
    trace_id: str = ""
    command_id: str = ""
    deadline_at: datetime | None = None
    """Until when an order that is not done waits."""
    request: str = ""
    response: str = ""
    details: str = ""
    cancellable: bool = False


class TasksPageView(msgspec.Struct, frozen=True, kw_only=True):
    """The task list with its filters."""

    rows: tuple[TaskRowView, ...]
    paging: PagingView
    statuses: tuple[OptionView, ...]
    servers: tuple[OptionView, ...] = ()
    operations: tuple[OptionView, ...] = ()
    status: str = ""
    server: str = ""
    operation: str = ""
    by: str = ""
    trace: str = ""

    @property
    def query(self) -> dict[str, str]:
        """The filters as a URL carries them."""
        return {
            "status": self.status,
            "server": self.server,
            "operation": self.operation,
            "by": self.by,
            "trace": self.trace,
        }
