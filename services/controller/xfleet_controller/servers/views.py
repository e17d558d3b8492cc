"""A server as the panel shows it; figures are None while nobody knows them, never the last ones frozen."""

from datetime import datetime

import msgspec

from xfleet_controller.panel.views import FormView


class UsageView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that fills up: memory, swap or disk."""

    used_bytes: int
    total_bytes: int

    @property
    def percent(self) -> float:
        """Share in use, 0 to 100."""
        return 100 * self.used_bytes / self.total_bytes if self.total_bytes else 0.0


class ServerCardView(msgspec.Struct, frozen=True, kw_only=True):
    """The live card of one server."""

    id: int
    slug: str
    name: str
    public_address: str
    status: str
    """online, stale, offline, pending (never seen), retiring or disabled"""
    last_seen_at: datetime | None = None
    last_error: str = ""
    tags: tuple[str, ...] = ()
    notes: str = ""
    cpu_percent: float | None = None
    cpu_count: int | None = None
    load_1m: float | None = None
    memory: UsageView | None = None
    swap: UsageView | None = None
    disk: UsageView | None = None
    up_bytes_per_s: float | None = None
    down_bytes_per_s: float | None = None
    down_spark: tuple[float, ...] = ()
    up_spark: tuple[float, ...] = ()
    clients_online: int | None = None
    clients_total: int = 0
    xray_state: str = "unknown"
    """running, starting, stopped, crashed or unknown"""
    xray_version: str = ""
    agent_version: str = ""
    os_name: str = ""
    host_uptime_s: int | None = None
    xray_uptime_s: int | None = None
    desired_revision: int = 0
    applied_revision: int | None = None
    cut_count: int = 0
    """Clients this server has cut off by itself."""

    @property
    def live(self) -> bool:
        """Whether the figures are current."""
        return self.status == "online"

    @property
    def in_sync(self) -> bool:
        """Whether the server runs what is wanted."""
        return self.applied_revision == self.desired_revision


class ServersPageView(msgspec.Struct, frozen=True, kw_only=True):
    """The list of servers."""

    servers: tuple[ServerCardView, ...]


class ServerFormView(msgspec.Struct, frozen=True, kw_only=True):
    """The form that edits one server."""

    id: int
    slug: str
    form: FormView
