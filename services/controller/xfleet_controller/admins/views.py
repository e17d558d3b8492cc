"""Admins as the panel shows them."""

from datetime import datetime

import msgspec

from xfleet_controller.panel.views import FormView


class AdminRowView(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the list."""

    id: int
    name: str
    role: str
    enabled: bool
    totp: bool
    invited: bool
    sessions_count: int
    tokens_count: int
    created_at: datetime
    last_login_at: datetime | None = None
    own: bool = False
    """Whether this is who looks."""


class AdminsPageView(msgspec.Struct, frozen=True, kw_only=True):
    """The list of admins."""

    rows: tuple[AdminRowView, ...]


class AdminFormView(msgspec.Struct, frozen=True, kw_only=True):
    """A dialog about one admin; `row` is None while it does not exist."""

    form: FormView
    row: AdminRowView | None = None


class InviteView(msgspec.Struct, frozen=True, kw_only=True):
    """A one-time link, shown once."""

    name: str
    url: str
    expires_at: datetime


class InvitedView(msgspec.Struct, frozen=True, kw_only=True):
    """The page behind such a link."""

    name: str
    token: str
    form: FormView
    password_length: int
