"""API tokens as the panel shows them."""

from datetime import datetime

import msgspec

from xfleet_controller.panel.views import FormView


class TokenRowView(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the list."""

    id: int
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    last_used_at: datetime | None = None
    expires_at: datetime | None = None
    expired: bool = False


class TokensPageView(msgspec.Struct, frozen=True, kw_only=True):
    """The own API tokens, or those of another admin."""

    rows: tuple[TokenRowView, ...]
    of: str = ""
    """Another admin's name; empty for the own."""


class TokenFormView(msgspec.Struct, frozen=True, kw_only=True):
    """The form that makes a token."""

    form: FormView


class TokenMadeView(msgspec.Struct, frozen=True, kw_only=True):
    """A new token, shown once."""

    name: str
    token: str
    expires_at: datetime | None
