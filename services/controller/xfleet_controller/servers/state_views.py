"""Desired state at work as the panel shows it."""

import msgspec

from xfleet_contracts.control import ServerDiff
from xfleet_controller.panel.views import OptionView, PagingView
from xfleet_controller.servers.adopting import StrayLine
from xfleet_controller.servers.history import RevertPreview, VersionLine
from xfleet_controller.servers.wording import ConfigChange

CHANGES_SHOWN_COUNT = 6
STRAYS_SHOWN_COUNT = 200


class HistoryPageView(msgspec.Struct, frozen=True, kw_only=True):
    """The versions of a server's configuration, and what the server does not run yet."""

    server_id: int
    server_name: str
    diff: ServerDiff
    strays: tuple[StrayLine, ...]
    """The first of them."""
    more_strays_count: int
    versions: tuple[VersionLine, ...]
    paging: PagingView
    shown_count: int = CHANGES_SHOWN_COUNT


class CompareView(msgspec.Struct, frozen=True, kw_only=True):
    """The difference between a version and another one, or now."""

    server_id: int
    version: int
    others: tuple[OptionView, ...]
    changes: tuple[ConfigChange, ...]


class RevertView(msgspec.Struct, frozen=True, kw_only=True):
    """What going back would do."""

    server_id: int
    preview: RevertPreview
    error: str = ""
    remove_added: bool = False
