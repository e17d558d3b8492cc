"""Logs of servers: the newest lines, and what follows while somebody looks."""

import msgspec

from xfleet_contracts.logs import LogsRead, LogText
from xfleet_controller.auth.rights import Actor, authorize
from xfleet_controller.context import Context
from xfleet_controller.errors import BusUnavailable, NotFound
from xfleet_controller.logs.hub import LogHub, line_of
from xfleet_controller.orders import service as orders
from xfleet_controller.orders.bodies import check_body
from xfleet_controller.orders.verbs import LOGS_READ
from xfleet_controller.servers.models import Server

MAX_OVERLAP = 200


async def read_log(context: Context, actor: Actor, server_id: int, order: LogsRead) -> LogText:
    """The newest lines of one log, fit to be shown. Raises what `orders.service.read` does."""
    text = await orders.read(context, actor, server_id, LOGS_READ, order)
    lines = tuple(line_of(line) for line in text.lines[-order.lines_count :])
    return msgspec.structs.replace(text, lines=lines)


async def get_followable(context: Context, actor: Actor, server_id: int, order: LogsRead) -> tuple[Server, LogHub]:
    """The server whose log this actor may follow, and where. Raises `Invalid`, `NotFound` or `TooManyWatchers`."""
    authorize(actor, LOGS_READ.action)
    check_body(order)
    async with context.database.read() as session:
        server = await session.get(Server, server_id)
    if server is None:
        raise NotFound("There is no such server.")
    if context.log_hub is None:
        raise BusUnavailable
    context.log_hub.admit(server.slug, order.log, order.contains)
    return server, context.log_hub


def without_overlap(before: tuple[str, ...], after: tuple[str, ...]) -> tuple[str, ...]:
    """The lines of `after` that `before` does not end with: the last of a reading are often the first that follow."""
    for count in range(min(len(before), len(after), MAX_OVERLAP), 0, -1):
        if before[-count:] == after[:count]:
            return after[count:]
    return after
