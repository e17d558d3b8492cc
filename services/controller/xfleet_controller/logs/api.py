"""`/api/v1/servers/{id}/logs`."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, get
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream

from xfleet_contracts.logs import MAX_LINES, LogsRead, LogText
from xfleet_controller.edge import TheActor, TheContext
from xfleet_controller.logs import service
from xfleet_controller.logs.hub import Batch
from xfleet_controller.logs.stream import EVENTS, HEADERS, PING, batches_of

Log = Annotated[str, QueryParameter(description="agent, xray_error, xray_access, or a path the server lists.")]
Lines = Annotated[int, QueryParameter(ge=1, le=MAX_LINES, description="The newest lines, at most this many.")]
Contains = Annotated[str, QueryParameter(max_length=200, description="Only lines with this text, in any case.")]


class LogApi(Controller):
    """Logs of one server."""

    path = "/servers/{server_id:int}/logs"
    tags = ["logs"]

    @get(summary="Read a log")
    async def read(
        self,
        context: TheContext,
        actor: TheActor,
        server_id: FromPath[int],
        log: Log = "agent",
        lines_count: Lines = 200,
        contains: Contains = "",
    ) -> LogText:
        """The newest lines, oldest first."""
        order = LogsRead(log=log, lines_count=lines_count, contains=contains)
        return await service.read_log(context, actor, server_id, order)

    @get("/live", summary="Follow a log", media_type=EVENTS)
    async def live(
        self,
        request: Request[Any, Any, Any],
        context: TheContext,
        actor: TheActor,
        server_id: FromPath[int],
        log: Log = "agent",
        contains: Contains = "",
    ) -> Stream:
        """Server-sent events: each is `{lines, dropped_count, error}`; new lines only."""
        order = LogsRead(log=log, lines_count=1, contains=contains)
        server, hub = await service.get_followable(context, actor, server_id, order)
        batches = batches_of(request, context, hub, server.slug, order)
        return Stream(_events(batches), media_type=EVENTS, headers=HEADERS)


async def _events(batches: AsyncIterator[Batch | None]) -> AsyncIterator[bytes]:
    async for batch in batches:
        yield PING if batch is None else b"data: " + msgspec.json.encode(batch) + b"\n\n"
