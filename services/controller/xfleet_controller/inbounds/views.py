"""Inbounds as the panel shows them."""

import msgspec

from xfleet_controller.panel.views import FormView


class InboundRowView(msgspec.Struct, frozen=True, kw_only=True):
    """One inbound of the list."""

    id: int
    remark: str
    server_id: int
    server_name: str
    listen: str
    port: int
    protocol: str
    network: str
    security: str
    enabled: bool
    status: str
    """live, pending (not acknowledged yet), degraded, disabled or offline (its server is away)"""
    status_reason: str = ""
    clients_total: int = 0
    clients_online: int | None = None
    up_bytes: int = 0
    down_bytes: int = 0

    @property
    def title(self) -> str:
        """The remark, or what tells the inbound apart without one."""
        return self.remark or f"{self.protocol}:{self.port}"

    @property
    def used_bytes(self) -> int:
        """Both directions together."""
        return self.up_bytes + self.down_bytes


class InboundsPageView(msgspec.Struct, frozen=True, kw_only=True):
    """The list of inbounds."""

    rows: tuple[InboundRowView, ...]
    has_server: bool = True


class InboundFormView(msgspec.Struct, frozen=True, kw_only=True):
    """The form that adds or edits an inbound; `id` is None while it does not exist."""

    id: int | None
    form: FormView
    advanced: bool = False
    """Whether the section with Xray's own JSON is open."""


class InboundDeleteView(msgspec.Struct, frozen=True, kw_only=True):
    """What deleting an inbound takes away."""

    row: InboundRowView
    error: str = ""
