"""What the page of backups shows."""

from datetime import datetime

import msgspec

from xfleet_controller.panel.views import FormView


class BackupRowView(msgspec.Struct, frozen=True, kw_only=True):
    """One backup."""

    name: str
    size_bytes: int
    made_at: datetime
    scheduled: bool


class BackupsPageView(msgspec.Struct, frozen=True, kw_only=True):
    """All of the page."""

    rows: tuple[BackupRowView, ...]
    directory: str
    passphrase_known: bool
    planned: bool
    last_error: str
    new_form: FormView
    plan_form: FormView
    retention_form: FormView
    passphrase_length: int
    """The least number of characters."""
    done: str = ""
    """What just happened: made, planned, kept or removed."""
