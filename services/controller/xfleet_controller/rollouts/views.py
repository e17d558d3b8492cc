"""Rollouts as the panel shows them."""

from datetime import datetime

import msgspec

from xfleet_controller.panel.views import FormView, PagingView


class RolloutRowView(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the list."""

    id: int
    title: str
    status: str
    """running, paused, completed or cancelled"""
    done_count: int
    failed_count: int
    total_count: int
    created_at: datetime
    ordered_by: str = ""
    error: str = ""


class RolloutServerView(msgspec.Struct, frozen=True, kw_only=True):
    """One server of a rollout."""

    server_id: int
    name: str
    status: str
    """waiting, running, watching, healthy, failed or skipped"""
    version_before: str = ""
    task_id: int | None = None
    error: str = ""


class WaveView(msgspec.Struct, frozen=True, kw_only=True):
    """One wave."""

    number: int
    servers: tuple[RolloutServerView, ...]


class RolloutDetailView(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout in full."""

    row: RolloutRowView
    waves: tuple[WaveView, ...]
    watch_s: int
    order: str
    trace_id: str = ""
    completed_at: datetime | None = None
    may_write: bool = True

    @property
    def can_pause(self) -> bool:
        """Whether it goes on by itself now."""
        return self.may_write and self.row.status == "running"

    @property
    def can_resume(self) -> bool:
        """Whether somebody has to say that it goes on."""
        return self.may_write and self.row.status == "paused"


class RolloutsPageView(msgspec.Struct, frozen=True, kw_only=True):
    """The list."""

    rows: tuple[RolloutRowView, ...]
    paging: PagingView
    may_write: bool = True


class RolloutFormView(msgspec.Struct, frozen=True, kw_only=True):
    """The form of a new rollout."""

    form: FormView
    servers_count: int
