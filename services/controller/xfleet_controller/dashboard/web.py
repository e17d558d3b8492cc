"""The dashboard with a browser."""

from typing import Annotated

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from xfleet_controller.dashboard.present import chart_view, problems_view, totals_view
from xfleet_controller.dashboard.views import DashboardView, TrafficChartView
from xfleet_controller.panel.store import count_clients, count_inbounds
from xfleet_controller.panel.visit import Visit
from xfleet_controller.servers.service import list_servers
from xfleet_controller.servers.web import MAX_CARDS, cards_of
from xfleet_controller.tasks.present import latest_tasks

Range = Annotated[str, QueryParameter(name="range")]


@get("/", include_in_schema=False)
async def show_dashboard(visit: NamedDependency[Visit], chart_range: Range = "1h") -> Response[bytes]:
    """The fleet at a glance, trouble first; or one server, when one is chosen."""
    chosen = visit.shell.server_id
    servers, _ = await list_servers(visit.context, visit.actor)
    servers = [view for view in servers if chosen in (None, view.server.id)]
    totals = await totals_view(visit.context, visit.actor, servers, server_id=chosen)
    async with visit.context.database.read() as session:
        inbounds_count, clients_count = await count_inbounds(session), await count_clients(session)
    cards = await cards_of(visit, servers)
    shown = tuple(sorted(cards, key=lambda card: card.order)[:MAX_CARDS])
    dashboard = DashboardView(
        totals=totals,
        chart=await _chart(visit, chart_range),
        servers=shown,
        tasks=await latest_tasks(visit.context, visit.actor, server_id=chosen),
        problems=problems_view(cards),
        hidden_count=len(cards) - len(shown),
        has_inbound=inbounds_count > 0,
        has_client=clients_count > 0,
    )
    live_url = visit.live_url("dashboard", ids=",".join(str(card.id) for card in shown))
    return visit.page("dashboard/index.html", dashboard=dashboard, live_url=live_url)


@get("/traffic", include_in_schema=False)
async def show_chart(visit: NamedDependency[Visit], chart_range: Range = "1h") -> Response[bytes]:
    """The chart's card alone, for another range."""
    return visit.fragment("dashboard/_traffic.html", chart=await _chart(visit, chart_range))


async def _chart(visit: Visit, chart_range: str) -> TrafficChartView:
    chart = await chart_view(visit.context, visit.actor, chart_range, server_id=visit.shell.server_id)
    return msgspec.structs.replace(chart, server=visit.shell.server)
