"""The dashboard: totals, the traffic chart, the newest tasks and the live server cards."""

from datetime import datetime

import msgspec

from xfleet_controller.servers.views import ProblemView, ServerCardView
from xfleet_controller.tasks.views import TaskRowView

CHART_RANGES = {"1h": "Last hour", "24h": "Last 24 hours", "7d": "Last 7 days"}
"""Range word in the URL → its label."""


class TotalsView(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet in four figures."""

    servers_online: int
    servers_total: int
    clients_online: int
    clients_total: int
    up_bytes_per_s: float | None
    down_bytes_per_s: float | None
    up_bytes: int = 0
    """Counted so far."""
    down_bytes: int = 0


class TrafficChartView(msgspec.Struct, frozen=True, kw_only=True):
    """Rates over time for the chart: parallel columns, times in seconds since 1970."""

    range: str
    server: str = ""
    """The value of `?server=` that its links keep."""
    at_s: tuple[int, ...] = ()
    up_bytes_per_s: tuple[float | None, ...] = ()
    down_bytes_per_s: tuple[float | None, ...] = ()

    @property
    def points(self) -> str:
        """The columns as JSON, for the chart module."""
        return msgspec.json.encode([self.at_s, self.up_bytes_per_s, self.down_bytes_per_s]).decode()


class ProblemsView(msgspec.Struct, frozen=True, kw_only=True):
    """What a person should look at."""

    problems: tuple[ProblemView, ...] = ()
    more_count: int = 0


class NoticeView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, in one line."""

    at: datetime
    tone: str
    """success, info, warning or danger"""
    server_name: str
    text: str


class DashboardView(msgspec.Struct, frozen=True, kw_only=True):
    """All of the dashboard."""

    totals: TotalsView
    chart: TrafficChartView
    servers: tuple[ServerCardView, ...]
    tasks: tuple[TaskRowView, ...]
    problems: ProblemsView = ProblemsView()
    hidden_count: int = 0
    """Servers without trouble that are not shown here."""
    has_inbound: bool = True
    has_client: bool = True
