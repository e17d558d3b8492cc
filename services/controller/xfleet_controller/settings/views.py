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


class BindingView(msgspec.Struct, frozen=True, kw_only=True):
    """A Telegram account that acts for this admin."""

    telegram_id: int
    name: str
    created_at: datetime


class TotpView(msgspec.Struct, frozen=True, kw_only=True):
    """The second factor: off, being set up, or on."""

    on: bool = False
    recovery_codes_left: int = 0
    secret: str = ""
    """Shown once, while it is set up."""
    qr_svg: str = ""
    asks_code: bool = False
    """Whether it is set up as soon as a code is given."""
    recovery_codes: tuple[str, ...] = ()
    """Shown once."""
    form: FormView = FormView(values={})


class SettingsView(msgspec.Struct, frozen=True, kw_only=True):
    """All of the settings page."""

    username: str
    password_form: FormView
    password_length: int
    """The least number of characters."""
    password_changed: bool = False
    bot_code: BotCodeView | None = None
    bindings: tuple[BindingView, ...] = ()
    totp: TotpView = TotpView()
    sessions: tuple[SessionRowView, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
