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
    """pending, running, completed, degraded, failed or expired"""
    created_at: datetime
    completed_at: datetime | None = None
    error: str = ""
    revision: int | None = None

    @property
    def took_s(self) -> float | None:
        """From order to outcome; None while it runs."""
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
    details: str = ""


class TasksPageView(msgspec.Struct, frozen=True, kw_only=True):
    """The task list with its filters."""

    rows: tuple[TaskRowView, ...]
    paging: PagingView
    statuses: tuple[OptionView, ...]
    servers: tuple[OptionView, ...] = ()
    status: str = ""
    server: str = ""
