"""The dashboard with a browser."""

from typing import Annotated

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from xfleet_controller.dashboard.present import chart_view, totals_view
from xfleet_controller.dashboard.views import DashboardView
from xfleet_controller.panel.store import count_inbounds
from xfleet_controller.panel.visit import Visit
from xfleet_controller.servers.service import list_servers
from xfleet_controller.servers.web import cards_of
from xfleet_controller.tasks.present import latest_tasks

Range = Annotated[str, QueryParameter(name="range")]


@get("/", include_in_schema=False)
async def show_dashboard(visit: NamedDependency[Visit], chart_range: Range = "1h") -> Response[bytes]:
    """The fleet at a glance."""
    servers, _ = await list_servers(visit.context, visit.actor)
    totals = await totals_view(visit.context, visit.actor, servers)
    async with visit.context.database.read() as session:
        inbounds_count = await count_inbounds(session)
    chart = await chart_view(visit.context, visit.actor, chart_range)
    dashboard = DashboardView(
        totals=totals,
        chart=chart,
        servers=await cards_of(visit, servers),
        tasks=await latest_tasks(visit.context, visit.actor),
        has_inbound=inbounds_count > 0,
        has_client=totals.clients_total > 0,
    )
    return visit.page("dashboard/index.html", dashboard=dashboard, live_url=visit.live_url("dashboard"))


@get("/traffic", include_in_schema=False)
async def show_chart(visit: NamedDependency[Visit], chart_range: Range = "1h") -> Response[bytes]:
    """The chart's card alone, for another range."""
    chart = await chart_view(visit.context, visit.actor, chart_range)
    return visit.fragment("dashboard/_traffic.html", chart=chart)
