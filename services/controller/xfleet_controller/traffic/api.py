"""`/api/v1/traffic`: how much went where."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from litestar import Controller, get
from litestar.params import FromPath, FromQuery, QueryParameter

from xfleet_controller.edge import TheActor, TheContext
from xfleet_controller.traffic import history

Hours = Annotated[int, QueryParameter(ge=1, le=24 * 400, description="How far back the series goes.")]
Step = Literal["hour", "day"]


class Point(msgspec.Struct, kw_only=True):
    """Bytes within one step, which begins at `at_s` (Unix seconds)."""

    at_s: int
    server_id: int
    up_bytes: int
    down_bytes: int


class TrafficOut(msgspec.Struct, kw_only=True):
    """Totals for ever, and a series per server."""

    up_bytes: int
    down_bytes: int
    series: list[Point]


class GapOut(msgspec.Struct, kw_only=True):
    """Bytes of this time may be missing; nothing is ever counted twice instead."""

    server_id: int
    reason: str
    from_at: datetime
    to_at: datetime


class Gaps(msgspec.Struct, kw_only=True):
    """Gaps of the ledger."""

    items: list[GapOut]


class TrafficApi(Controller):
    """Traffic of the fleet."""

    path = "/traffic"
    tags = ["traffic"]

    @get(summary="Traffic of the fleet")
    async def show(
        self,
        context: TheContext,
        actor: TheActor,
        server_id: FromQuery[int | None] = None,
        hours: Hours = 24,
        step: FromQuery[Step] = "hour",
    ) -> TrafficOut:
        """In the clients' view."""
        found = await history.fleet_traffic(context, actor, server_id=server_id, hours=hours, step=step)
        return _out(found)

    @get("/gaps", summary="Time whose bytes nobody can know")
    async def list_gaps(
        self, context: TheContext, actor: TheActor, server_id: FromQuery[int | None] = None, hours: Hours = 24 * 30
    ) -> Gaps:
        """Newest first, 500 at most."""
        found = await history.list_gaps(context, actor, server_id=server_id, hours=hours)
        return Gaps(
            items=[
                GapOut(server_id=row.server_id, reason=row.reason, from_at=row.from_at, to_at=row.to_at)
                for row in found
            ]
        )


class ClientTrafficApi(Controller):
    """Traffic of one client."""

    path = "/clients"
    tags = ["traffic"]

    @get("/{client_id:int}/traffic", summary="Traffic of a client")
    async def show_client(
        self,
        context: TheContext,
        actor: TheActor,
        client_id: FromPath[int],
        hours: Hours = 24,
        step: FromQuery[Step] = "hour",
    ) -> TrafficOut:
        """In the client's view."""
        return _out(await history.client_traffic(context, actor, client_id, hours=hours, step=step))


def _out(found: history.Traffic) -> TrafficOut:
    series = [
        Point(at_s=row.at_s, server_id=row.server_id, up_bytes=row.up_bytes, down_bytes=row.down_bytes)
        for row in found.series
    ]
    return TrafficOut(up_bytes=found.up_bytes, down_bytes=found.down_bytes, series=series)
