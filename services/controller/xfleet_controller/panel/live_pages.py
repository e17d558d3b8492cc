"""Which fragments each live page shows, rendered as of now."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from xfleet_controller.clients.present import row_view
from xfleet_controller.clients.service import find_clients
from xfleet_controller.dashboard.present import problems_view, totals_view
from xfleet_controller.dashboard.views import TotalsView
from xfleet_controller.inbounds.web import inbound_rows
from xfleet_controller.orders.present import panel_view
from xfleet_controller.panel.visit import Visit
from xfleet_controller.rollouts.present import rollout_detail
from xfleet_controller.rollouts.service import get as get_rollout
from xfleet_controller.rollouts.service import list_rollouts
from xfleet_controller.servers.dialogs import waiting_view
from xfleet_controller.servers.service import ServerView, get_server, list_servers
from xfleet_controller.servers.views import ServerCardView
from xfleet_controller.servers.web import cards_of, detail_of
from xfleet_controller.tasks.present import latest_tasks
from xfleet_controller.tasks.service import list_tasks
from xfleet_controller.tasks.store import TaskFilter

Fragments = dict[str, str]
LivePage = Callable[[Visit, tuple[int, ...]], Awaitable[Fragments]]
POINT_STEP_S = 10
TASKS_WATCHED = 50
JOINING_IDS = 2


async def dashboard(visit: Visit, ids: tuple[int, ...]) -> Fragments:
    """Totals, problems, the chart's next point, tasks, and the cards that are on the page."""
    servers, _ = await list_servers(visit.context, visit.actor)
    servers = [view for view in servers if visit.shell.server_id in (None, view.server.id)]
    totals = await totals_view(visit.context, visit.actor, servers, server_id=visit.shell.server_id)
    tasks = await latest_tasks(visit.context, visit.actor, server_id=visit.shell.server_id)
    cards = await cards_of(visit, servers)
    found = _cards(visit, [card for card in cards if card.id in ids], wide=len(servers) == 1)
    found["dashboard-totals"] = _partial(visit, "dashboard-totals", "dashboard/_totals.html", totals=totals)
    found["dashboard-tasks"] = _partial(visit, "dashboard-tasks", "dashboard/_tasks.html", tasks=tasks)
    problems = problems_view(cards)
    name = "dashboard-problems"
    found[name] = _partial(visit, name, "dashboard/_problems.html", problems=problems)
    found["event:traffic"] = _point(visit, totals)
    return found


async def servers(visit: Visit, ids: tuple[int, ...]) -> Fragments:
    """The cards on the page."""
    rows = await _rows(visit, ids)
    return _cards(visit, await cards_of(visit, rows), wide=visit.shell.single_server)


async def servers_table(visit: Visit, ids: tuple[int, ...]) -> Fragments:
    """The changing cells of the lines on the page."""
    found: Fragments = {}
    for card in await cards_of(visit, await _rows(visit, ids)):
        for part in ("state", "load", "traffic", "clients"):
            name = f"server-{part}-{card.id}"
            found[name] = _partial(visit, name, f"servers/_row_{part}.html", server=card)
    return found


async def server(visit: Visit, ids: tuple[int, ...]) -> Fragments:
    """One server's card, facts and tasks."""
    found: Fragments = {}
    for row in await _rows(visit, ids[:1]):
        (card,) = await cards_of(visit, [row])
        found = _cards(visit, [card], wide=True)
        detail = await detail_of(visit, row, card)
        name = f"server-detail-{card.id}"
        found[name] = _partial(visit, name, "servers/_detail.html", server=card, detail=detail)
        found |= await orders(visit, ids)
    return found


async def joining(visit: Visit, ids: tuple[int, ...]) -> Fragments:
    """Whether the machine of a line has come; `ids` are the server and the second its line was made."""
    if len(ids) != JOINING_IDS:
        return {}
    waiting = await waiting_view(visit, *ids)
    name = f"server-waiting-{waiting.id}"
    return {name: _partial(visit, name, "servers/_waiting.html", waiting=waiting)}


async def inbounds(visit: Visit, _ids: tuple[int, ...]) -> Fragments:
    """Status, clients and traffic of every inbound."""
    found: Fragments = {}
    for row in await inbound_rows(visit, server_id=visit.shell.server_id):
        for part in ("status", "clients", "traffic"):
            name = f"inbound-{part}-{row.id}"
            found[name] = _partial(visit, name, f"inbounds/_{part}.html", row=row)
    return found


async def clients(visit: Visit, ids: tuple[int, ...]) -> Fragments:
    """Presence, state and traffic of the clients on the page."""
    found: Fragments = {}
    for view in await find_clients(visit.context, visit.actor, ids):
        row = row_view(view, {})
        for part in ("online", "state", "traffic"):
            name = f"client-{part}-{row.id}"
            found[name] = _partial(visit, name, f"clients/_{part}.html", row=row)
    return found


async def tasks(visit: Visit, _ids: tuple[int, ...]) -> Fragments:
    """Tells the list to fetch itself again when a task came or moved on."""
    page = await list_tasks(
        visit.context, visit.actor, TaskFilter(server_id=visit.shell.server_id), page_size=TASKS_WATCHED
    )
    states = [(task.id, task.status) for task in page.rows]
    return {"event:tasks-changed": msgspec.json.encode(states).decode()}


async def orders(visit: Visit, ids: tuple[int, ...]) -> Fragments:
    """What can be ordered from one server, and its latest tasks."""
    found: Fragments = {}
    for server_id in ids[:1]:
        row = (await get_server(visit.context, visit.actor, server_id)).server
        view = await panel_view(visit.context, visit.actor, row)
        name = f"server-orders-{server_id}"
        found[name] = _partial(visit, name, "orders/_panel.html", orders=view, shell=visit.shell)
        found["dashboard-tasks"] = _partial(visit, "dashboard-tasks", "dashboard/_tasks.html", tasks=view.tasks)
    return found


async def rollouts(visit: Visit, _ids: tuple[int, ...]) -> Fragments:
    """Tells the list to fetch itself again when a rollout came or moved on."""
    views, _ = await list_rollouts(visit.context, visit.actor)
    states = [(view.rollout.id, view.rollout.status, view.counts) for view in views]
    return {"event:rollouts-changed": msgspec.json.encode(states).decode()}


async def rollout(visit: Visit, ids: tuple[int, ...]) -> Fragments:
    """One rollout with its servers."""
    found: Fragments = {}
    for rollout_id in ids[:1]:
        view = rollout_detail(await get_rollout(visit.context, visit.actor, rollout_id), visit.actor)
        name = f"rollout-detail-{rollout_id}"
        found[name] = _partial(visit, name, "rollouts/_detail.html", rollout=view, shell=visit.shell)
    return found


async def gallery(_visit: Visit, _ids: tuple[int, ...]) -> Fragments:
    """Nothing: made-up pages stand still, but their stream stands."""
    return {}


PAGES: Mapping[str, LivePage] = {
    "dashboard": dashboard,
    "servers": servers,
    "servers-table": servers_table,
    "server": server,
    "joining": joining,
    "inbounds": inbounds,
    "clients": clients,
    "tasks": tasks,
    "orders": orders,
    "rollouts": rollouts,
    "rollout": rollout,
    "gallery": gallery,
}


def _cards(visit: Visit, cards: Sequence[ServerCardView], *, wide: bool) -> Fragments:
    template = "servers/_card_wide.html" if wide else "servers/_card.html"
    found: Fragments = {}
    for card in cards:
        name = f"server-card-{card.id}"
        found[name] = _partial(visit, name, template, server=card)
    return found


async def _rows(visit: Visit, ids: tuple[int, ...]) -> Sequence[ServerView]:
    rows, _ = await list_servers(visit.context, visit.actor)
    return [row for row in rows if row.server.id in ids]


def _partial(visit: Visit, name: str, template: str, **context: object) -> str:
    return visit.panel.templates.partial(name, template, **{"shell": visit.shell} | context)


def _point(visit: Visit, totals: TotalsView) -> str:
    at_s = int(visit.context.clock.now().timestamp()) // POINT_STEP_S * POINT_STEP_S
    return msgspec.json.encode([at_s, totals.up_bytes_per_s, totals.down_bytes_per_s]).decode()
