"""The audit log as the panel shows it."""

from datetime import datetime

import msgspec

from xfleet_controller.audit.difference import Change
from xfleet_controller.panel.views import OptionView, PagingView


class AuditRowView(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log."""

    id: int
    at: datetime
    actor: str
    address: str
    words: str
    """The action as people say it."""
    kind: str
    object_id: str
    object_name: str
    changes: tuple[Change, ...] = ()


class AuditPageView(msgspec.Struct, frozen=True, kw_only=True):
    """The log with its filters."""

    rows: tuple[AuditRowView, ...]
    paging: PagingView
    actions: tuple[OptionView, ...]
    query: dict[str, str]
    """The filters as given: by, action, subject, since, until."""

    @property
    def filtered(self) -> bool:
        """Whether the list shows less than everything on purpose."""
        return any(self.query.values())
