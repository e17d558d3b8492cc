"""Logs with a browser: the newest lines, and what follows while the page is looked at."""

from collections.abc import AsyncIterator

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from litestar.response import Stream

from xfleet_contracts.errors import Refusal
from xfleet_contracts.logs import LOG_KINDS, LogsRead, LogText
from xfleet_controller.auth.rights import authorize
from xfleet_controller.logs import service
from xfleet_controller.logs.hub import Batch
from xfleet_controller.logs.stream import EVENTS, HEADERS, PING, batches_of
from xfleet_controller.logs.views import LogPageView
from xfleet_controller.orders.verbs import LOGS_READ
from xfleet_controller.panel.views import OptionView
from xfleet_controller.panel.visit import Visit
from xfleet_controller.servers.service import get_server
from xfleet_controller.sse import message_of

COUNTS = (100, 200, 500, 1000)
USUAL = 200
MAX_TEXT = 200
NAMES = {"agent": "Agent", "xray_error": "Xray errors", "xray_access": "Xray access"}


@get("/servers/{server_id:int}/logs", include_in_schema=False)
async def show_logs(
    visit: NamedDependency[Visit],
    server_id: FromPath[int],
    log: FromQuery[str] = "agent",
    lines: FromQuery[int] = USUAL,
    text: FromQuery[str] = "",
    follow: FromQuery[str] = "",
) -> Response[bytes]:
    """One log, once; a browser with JavaScript follows it when `follow` is on."""
    authorize(visit.actor, LOGS_READ.action)
    server = (await get_server(visit.context, visit.actor, server_id)).server
    order = _order(log, lines, text)
    found, error = LogText(log=order.log), ""
    try:
        found = await service.read_log(visit.context, visit.actor, server_id, order)
    except Refusal as refusal:
        error = refusal.text
    view = LogPageView(
        server_id=server.id,
        server_name=server.name,
        log=order.log,
        lines_count=order.lines_count,
        contains=order.contains,
        follow=follow == "on",
        lines=found.lines,
        truncated=found.truncated,
        size_bytes=found.size_bytes,
        error=error,
        logs=_logs(order.log),
        counts=tuple(OptionView(value=str(count), label=f"{count}") for count in COUNTS),
    )
    query = {"log": order.log, "lines": order.lines_count, "text": order.contains}
    live_url = visit.url(f"/servers/{server_id}/logs/live", **query) if follow == "on" else ""
    return visit.page("logs/show.html", log_page=view, live_url=live_url)


@get("/servers/{server_id:int}/logs/live", include_in_schema=False, media_type=EVENTS)
async def follow_log(
    visit: NamedDependency[Visit],
    server_id: FromPath[int],
    log: FromQuery[str] = "agent",
    lines: FromQuery[int] = USUAL,
    text: FromQuery[str] = "",
) -> Stream:
    """The log as it is, then its new lines, as fragments."""
    order = _order(log, lines, text)
    server, hub = await service.get_followable(visit.context, visit.actor, server_id, order)
    batches = batches_of(visit.request, visit.context, hub, server.slug, order)
    return Stream(_fragments(visit, server_id, order, batches), media_type=EVENTS, headers=HEADERS)


async def _fragments(
    visit: Visit, server_id: int, order: LogsRead, batches: AsyncIterator[Batch | None]
) -> AsyncIterator[bytes]:
    """First what there is, once the log is followed, so that nothing falls between; then what is new."""
    before: tuple[str, ...] | None = None
    async for batch in batches:
        if batch is None:
            yield PING
        elif before is None:
            before = ()
            try:
                before = (await service.read_log(visit.context, visit.actor, server_id, order)).lines
            except Refusal as refusal:
                yield _message(visit, (), 0, refusal.text, whole=True)
            else:
                yield _message(visit, before, 0, "", whole=True)
        else:
            fresh = service.without_overlap(before, batch.lines)
            before = ()
            if fresh or batch.dropped_count or batch.error:
                yield _message(visit, fresh, batch.dropped_count, _sentence(batch.error))


def _message(visit: Visit, lines: tuple[str, ...], dropped_count: int, error: str, *, whole: bool = False) -> bytes:
    body = visit.panel.templates.render("logs/_lines.html", lines=lines, dropped_count=dropped_count, error=error)
    swap = "innerHTML" if whole else "beforeend"
    return message_of({"log-lines": f'<hx-partial hx-target="#log-lines" hx-swap="{swap}">{body}</hx-partial>'})


def _sentence(word: str) -> str:
    known = {
        "": "",
        "log_not_allowed": "This log may not be read.",
        "rate_limited": "Too many live logs are open. Close some of them.",
        "bad_answer": "The server sent lines that cannot be read.",
    }
    return known.get(word, f"The log cannot be followed: {word}.")


def _order(log: str, lines: int, contains: str) -> LogsRead:
    return LogsRead(
        log=log[:MAX_TEXT] or "agent", lines_count=lines if lines in COUNTS else USUAL, contains=contains[:MAX_TEXT]
    )


def _logs(chosen: str) -> tuple[OptionView, ...]:
    """The logs to choose from; a path the server lists stays chosen."""
    known = tuple(OptionView(value=kind, label=NAMES[kind]) for kind in LOG_KINDS)
    return known if chosen in LOG_KINDS else (*known, OptionView(value=chosen, label=chosen))


DOORS = (show_logs, follow_log)
