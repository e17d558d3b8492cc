"""Logs as the panel shows them."""

import msgspec

from xfleet_controller.panel.views import OptionView


class LogPageView(msgspec.Struct, frozen=True, kw_only=True):
    """One log of one server."""

    server_id: int
    server_name: str
    log: str
    lines_count: int
    contains: str = ""
    follow: bool = True
    lines: tuple[str, ...] = ()
    truncated: bool = False
    size_bytes: int = 0
    error: str = ""
    """Why it cannot be shown."""
    logs: tuple[OptionView, ...] = ()
    counts: tuple[OptionView, ...] = ()
