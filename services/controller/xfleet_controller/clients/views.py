"""Clients as the panel shows them."""

from datetime import datetime

import msgspec

from xfleet_controller.panel.views import FormView, OptionView, PagingView

_NEARLY = 80
_FULL = 100


class ClientRowView(msgspec.Struct, frozen=True, kw_only=True):
    """One client of the list."""

    id: int
    name: str
    state: str
    """active, depleted, expired, expiring or disabled"""
    online: bool
    enabled: bool
    up_bytes: int
    down_bytes: int
    total_bytes: int
    """The quota; 0 is without limit."""
    expires_at: datetime | None = None
    last_online_at: datetime | None = None
    comment: str = ""
    inbounds: tuple[str, ...] = ()

    @property
    def used_bytes(self) -> int:
        """Both directions together."""
        return self.up_bytes + self.down_bytes

    @property
    def used_percent(self) -> float | None:
        """Share of the quota in use, at most 100; None without a quota."""
        return min(100.0, 100 * self.used_bytes / self.total_bytes) if self.total_bytes else None

    @property
    def quota_tone(self) -> str:
        """The colour of the quota bar."""
        percent = self.used_percent or 0
        return "danger" if percent >= _FULL else "warning" if percent >= _NEARLY else "primary"


class ClientsPageView(msgspec.Struct, frozen=True, kw_only=True):
    """The list of clients with search and state filter."""

    rows: tuple[ClientRowView, ...]
    paging: PagingView
    states: tuple[OptionView, ...]
    search: str = ""
    state: str = ""
    inbound: str = ""
    """Id of the inbound the list is narrowed to; empty for all."""
    inbound_title: str = ""
    has_inbound: bool = True

    @property
    def filtered(self) -> bool:
        """Whether the list shows less than everything on purpose."""
        return bool(self.search or self.state or self.inbound)


class LinkView(msgspec.Struct, frozen=True, kw_only=True):
    """One share link: an inbound a client may use."""

    remark: str
    server_name: str
    url: str
    qr_svg: str


class ClientDetailView(msgspec.Struct, frozen=True, kw_only=True):
    """One client with everything an admin hands over or looks up."""

    row: ClientRowView
    subscription_url: str
    subscription_qr_svg: str
    links: tuple[LinkView, ...] = ()
    created_at: datetime | None = None
    cuts: tuple[str, ...] = ()
    """How the last disconnect applied, one line per server."""
    address_warning: str = ""
    """Why a phone could not reach the links as they are."""
    withheld_servers: str = ""
    """Names of the servers that are handed out to nobody now."""


class ClientFormView(msgspec.Struct, frozen=True, kw_only=True):
    """The form that adds or edits a client; `id` is None while it does not exist."""

    id: int | None
    form: FormView


class ClientDeleteView(msgspec.Struct, frozen=True, kw_only=True):
    """What deleting a client takes away."""

    row: ClientRowView
    error: str = ""
