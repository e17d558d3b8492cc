"""Traffic of the past for the API: totals and series by hour or day."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.auth.rights import Actor, authorize
from xfleet_controller.clients.models import Client
from xfleet_controller.context import Context
from xfleet_controller.errors import NotFound
from xfleet_controller.traffic import query
from xfleet_controller.traffic.models import LedgerGap, TrafficDaily, TrafficHourly
from xfleet_controller.traffic.query import Bytes

HOUR_S = 3600
DAY_S = 86400


class Row(NamedTuple):
    """Bytes of one server within one step."""

    at_s: int
    server_id: int
    up_bytes: int
    down_bytes: int


class Traffic(NamedTuple):
    """Totals for ever, and a series."""

    up_bytes: int
    down_bytes: int
    series: Sequence[Row]


async def fleet_traffic(
    context: Context, actor: Actor, *, server_id: int | None = None, hours: int = 24, step: str = "hour"
) -> Traffic:
    """Traffic of all servers, or of one."""
    authorize(actor, "traffic.read")
    async with context.database.read() as session:
        if server_id is None:
            totals = await query.get_fleet(session)
        else:
            totals = await query.get_server_clients(session, server_id)
        return await _read(session, context, totals, hours=hours, step=step, server_id=server_id)


async def client_traffic(
    context: Context, actor: Actor, client_id: int, *, hours: int = 24, step: str = "hour"
) -> Traffic:
    """Traffic of one client over all servers. Raises `NotFound`."""
    authorize(actor, "traffic.read")
    async with context.database.read() as session:
        ref = await session.scalar(select(Client.ref).where(Client.id == client_id))
        if ref is None:
            raise NotFound("There is no such client.")
        figures = await query.get_client(session, ref)
        totals = Bytes(figures.up_bytes, figures.down_bytes)
        return await _read(session, context, totals, hours=hours, step=step, client_ref=ref)


async def list_gaps(
    context: Context, actor: Actor, *, server_id: int | None = None, hours: int = 24
) -> Sequence[LedgerGap]:
    """Times whose bytes nobody can know, newest first."""
    authorize(actor, "traffic.read")
    since = context.clock.now() - timedelta(hours=hours)
    async with context.database.read() as session:
        return await query.list_gaps(session, server_id, since)


async def _read(
    session: AsyncSession,
    context: Context,
    totals: Bytes,
    *,
    hours: int,
    step: str,
    server_id: int | None = None,
    client_ref: int | None = None,
) -> Traffic:
    table: Any = TrafficHourly if step == "hour" else TrafficDaily
    slot, length_s = (table.hour, HOUR_S) if step == "hour" else (table.day, DAY_S)
    since = (int(context.clock.now().timestamp()) - hours * HOUR_S) // length_s
    statement = select(slot, table.server_id, func.sum(table.up_bytes), func.sum(table.down_bytes)).where(slot >= since)
    if server_id is not None:
        statement = statement.where(table.server_id == server_id)
    if client_ref is not None:
        statement = statement.where(table.client_ref == client_ref)
    rows = await session.execute(statement.group_by(slot, table.server_id).order_by(slot, table.server_id))
    series = [Row(at * length_s, server, int(up_bytes), int(down_bytes)) for at, server, up_bytes, down_bytes in rows]
    return Traffic(totals.up_bytes, totals.down_bytes, series)
