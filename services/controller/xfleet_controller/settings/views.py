"""The settings page: the own account and the bot."""

from datetime import datetime

import msgspec

from xfleet_controller.panel.views import FormView


class BotCodeView(msgspec.Struct, frozen=True, kw_only=True):
    """A one-time code that binds a Telegram account to this admin."""

    code: str
    expires_at: datetime


class SessionRowView(msgspec.Struct, frozen=True, kw_only=True):
    """One place this admin is signed in."""

    id: str
    user_agent: str
    address: str
    last_seen_at: datetime
    current: bool


class SettingsView(msgspec.Struct, frozen=True, kw_only=True):
    """All of the settings page."""

    username: str
    password_form: FormView
    password_length: int
    """The least number of characters."""
    password_changed: bool = False
    bot_code: BotCodeView | None = None
    bot_bound: bool = False
    sessions: tuple[SessionRowView, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
