"""The dashboard's figures, as of now."""

from collections.abc import Sequence
from datetime import timedelta
from statistics import fmean

from xfleet_controller.auth.rights import Actor, authorize
from xfleet_controller.context import Context
from xfleet_controller.dashboard.views import CHART_RANGES, ProblemsView, TotalsView, TrafficChartView
from xfleet_controller.panel.store import count_clients
from xfleet_controller.servers.presence import ONLINE
from xfleet_controller.servers.service import ServerView
from xfleet_controller.servers.store import count_clients as count_server_clients
from xfleet_controller.servers.views import ServerCardView
from xfleet_controller.traffic import query
from xfleet_controller.traffic.query import Bytes, Point, Scope, Step

MINUTE_S = 60
MAX_PROBLEMS = 8
SPANS: dict[str, tuple[timedelta, Step, int]] = {
    "1h": (timedelta(hours=1), "minute", 1),
    "24h": (timedelta(hours=24), "minute", 10),
    "7d": (timedelta(days=7), "hour", 1),
}
"""Range → how far back, the ledger's step, and how many steps make one point of the chart."""


async def totals_view(
    context: Context, actor: Actor, servers: Sequence[ServerView], *, server_id: int | None = None
) -> TotalsView:
    """The fleet in four figures; of one server alone when `server_id` is given."""
    authorize(actor, "traffic.read")
    online = [view.server.id for view in servers if view.status == ONLINE]
    async with context.database.read() as session:
        rates = await query.find_rates(session, online, context.clock.now()) if online else {}
        if server_id is None:
            bytes_ = await query.get_fleet(session)
            clients_total = await count_clients(session)
            moving = await query.list_online(session, context.clock.now())
            clients_online = len(context.presence.online_clients() | moving)
        else:
            bytes_ = (await query.find_servers(session, [server_id])).get(server_id, Bytes())
            clients_total = (await count_server_clients(session)).get(server_id, 0)
            seen = [context.presence.get(view.server.slug) for view in servers if view.status == ONLINE]
            clients_online = sum(each.beat.online_count for each in seen if each is not None)
    return TotalsView(
        servers_online=len(online),
        servers_total=len(servers),
        clients_online=clients_online,
        clients_total=clients_total,
        up_bytes_per_s=sum(rate.up_bytes for rate in rates.values()) if online else None,
        down_bytes_per_s=sum(rate.down_bytes for rate in rates.values()) if online else None,
        up_bytes=bytes_.up_bytes,
        down_bytes=bytes_.down_bytes,
    )


def problems_view(cards: Sequence[ServerCardView]) -> ProblemsView:
    """What a person should look at in the fleet, worst first."""
    ranked = sorted(cards, key=lambda card: card.order)
    found = [problem for card in ranked for problem in card.problems]
    return ProblemsView(problems=tuple(found[:MAX_PROBLEMS]), more_count=max(0, len(found) - MAX_PROBLEMS))


async def chart_view(context: Context, actor: Actor, range_: str, *, server_id: int | None = None) -> TrafficChartView:
    """Rates of all clients over a range of `CHART_RANGES`; the step that has just begun is left out."""
    authorize(actor, "traffic.read")
    range_ = range_ if range_ in CHART_RANGES else "1h"
    span, step, per_point = SPANS[range_]
    now = context.clock.now()
    async with context.database.read() as session:
        series = await query.list_series(session, Scope(server_id=server_id), step, now - span, now)
    return chart_of(range_, series[:-1], query.STEP_S[step], per_point)


def chart_of(range_: str, series: Sequence[Point], step_s: int, per_point: int) -> TrafficChartView:
    """A series of bytes per step as rates, `per_point` steps averaged to a point; empty when nothing ever moved."""
    if not any(point.up_bytes or point.down_bytes for point in series):
        return TrafficChartView(range=range_)
    at_s: list[int] = []
    up: list[float] = []
    down: list[float] = []
    for points in _in_groups(series, per_point):
        at_s.append(int(points[0].at.timestamp()))
        up.append(round(fmean(point.up_bytes for point in points) / step_s, 1))
        down.append(round(fmean(point.down_bytes for point in points) / step_s, 1))
    return TrafficChartView(range=range_, at_s=tuple(at_s), up_bytes_per_s=tuple(up), down_bytes_per_s=tuple(down))


def _in_groups(series: Sequence[Point], size: int) -> list[Sequence[Point]]:
    return [series[at : at + size] for at in range(0, len(series), size)]
