"""What panel and API read from the ledger: totals, series, who is online."""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.traffic.models import (
    ClientInboundTotal,
    ClientTotal,
    LedgerGap,
    OutboundTraffic,
    ServerMinute,
    TagTotal,
    TrafficDaily,
    TrafficHourly,
)

ONLINE_FOR = timedelta(seconds=30)
IN_LIST = 400
RATE_MINUTES = 2

Step = Literal["minute", "hour", "day"]
STEP_S: dict[Step, int] = {"minute": 60, "hour": 3600, "day": 86400}


class Bytes(msgspec.Struct, frozen=True):
    """Up and down, as the client sees it."""

    up_bytes: int = 0
    down_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """Both together."""
        return self.up_bytes + self.down_bytes


class ClientFigures(msgspec.Struct, frozen=True):
    """A client's bytes over all servers."""

    up_bytes: int = 0
    down_bytes: int = 0
    period_up_bytes: int = 0
    period_down_bytes: int = 0
    period_started_at: datetime | None = None
    last_online_at: datetime | None = None

    @property
    def period_bytes(self) -> int:
        """What counts against the quota."""
        return self.period_up_bytes + self.period_down_bytes


class Point(msgspec.Struct, frozen=True):
    """Bytes of one step of a series."""

    at: datetime
    """Its beginning."""
    up_bytes: int
    down_bytes: int


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Whose bytes; nothing set: the fleet's."""

    server_id: int | None = None
    client_ref: int | None = None
    inbound_ref: int | None = None


async def find_clients(session: AsyncSession, refs: Collection[int]) -> dict[int, ClientFigures]:
    """Figures of these clients; one who never moved a byte is missing."""
    found: dict[int, ClientFigures] = {}
    for part in _parts(refs):
        rows = await session.execute(
            select(
                ClientTotal.client_ref,
                ClientTotal.up_bytes,
                ClientTotal.down_bytes,
                ClientTotal.period_up_bytes,
                ClientTotal.period_down_bytes,
                ClientTotal.period_started_at,
                ClientTotal.last_online_at,
            ).where(ClientTotal.client_ref.in_(part))
        )
        found.update((row[0], ClientFigures(*row[1:])) for row in rows)
    return found


async def get_client(session: AsyncSession, ref: int) -> ClientFigures:
    """One client's figures."""
    return (await find_clients(session, [ref])).get(ref, ClientFigures())


async def find_client_inbounds(session: AsyncSession, client_ref: int) -> dict[int, Bytes]:
    """A client's bytes by inbound; as of the last roll-up."""
    rows = await session.execute(
        select(ClientInboundTotal.inbound_ref, ClientInboundTotal.up_bytes, ClientInboundTotal.down_bytes).where(
            ClientInboundTotal.client_ref == client_ref
        )
    )
    return {ref: Bytes(up, down) for ref, up, down in rows}


async def get_fleet(session: AsyncSession) -> Bytes:
    """Bytes of all clients, for ever."""
    row = (await session.execute(select(func.sum(ClientTotal.up_bytes), func.sum(ClientTotal.down_bytes)))).one()
    return Bytes(int(row[0] or 0), int(row[1] or 0))


async def get_server_clients(session: AsyncSession, server_id: int) -> Bytes:
    """Bytes of all clients on a server; as of the last roll-up."""
    row = (
        await session.execute(
            select(func.sum(ClientInboundTotal.up_bytes), func.sum(ClientInboundTotal.down_bytes)).where(
                ClientInboundTotal.server_id == server_id
            )
        )
    ).one()
    return Bytes(int(row[0] or 0), int(row[1] or 0))


async def find_inbounds(session: AsyncSession, refs: Collection[int]) -> dict[int, Bytes]:
    """Bytes of these inbounds as on the wire."""
    tags = {str(ref): ref for ref in refs}
    found: dict[int, Bytes] = {}
    for part in _parts(tags):
        rows = await session.execute(
            select(TagTotal.tag, func.sum(TagTotal.up_bytes), func.sum(TagTotal.down_bytes))
            .where(TagTotal.direction == "inbound", TagTotal.tag.in_(part))
            .group_by(TagTotal.tag)
        )
        found.update((tags[tag], Bytes(int(up), int(down))) for tag, up, down in rows)
    return found


async def find_servers(session: AsyncSession, server_ids: Collection[int]) -> dict[int, Bytes]:
    """Bytes of the inbounds of these servers as on the wire, for ever."""
    rows = await session.execute(
        select(TagTotal.server_id, func.sum(TagTotal.up_bytes), func.sum(TagTotal.down_bytes))
        .where(TagTotal.direction == "inbound", TagTotal.server_id.in_(server_ids))
        .group_by(TagTotal.server_id)
    )
    return {server_id: Bytes(int(up), int(down)) for server_id, up, down in rows}


async def find_outbounds(session: AsyncSession, server_id: int) -> dict[str, Bytes]:
    """Bytes of a server's outbounds as on the wire, by tag."""
    rows = await session.execute(
        select(TagTotal.tag, TagTotal.up_bytes, TagTotal.down_bytes).where(
            TagTotal.direction == "outbound", TagTotal.server_id == server_id
        )
    )
    return {tag: Bytes(up, down) for tag, up, down in rows}


async def list_online(session: AsyncSession, now: datetime) -> set[int]:
    """Clients that moved bytes within the last half minute."""
    rows = await session.scalars(select(ClientTotal.client_ref).where(ClientTotal.last_online_at > now - ONLINE_FOR))
    return set(rows)


async def list_series(session: AsyncSession, scope: Scope, step: Step, since: datetime, until: datetime) -> list[Point]:
    """Bytes per step from `since` to `until`, steps without any included.

    Minutes exist for servers and the fleet, about a day back. Hours and days are as of the last roll-up.
    """
    first, last = int(since.timestamp()) // STEP_S[step], int(until.timestamp()) // STEP_S[step]
    table, column = _source(step)
    query = select(column, func.sum(table.up_bytes), func.sum(table.down_bytes)).where(column >= first, column <= last)
    for condition in _conditions(table, scope):
        query = query.where(condition)
    found = {place: (int(up), int(down)) for place, up, down in await session.execute(query.group_by(column))}
    return [
        Point(datetime.fromtimestamp(place * STEP_S[step], UTC), *found.get(place, (0, 0)))
        for place in range(first, last + 1)
    ]


async def list_outbound_series(
    session: AsyncSession, server_id: int, tag: str, since: datetime, until: datetime
) -> list[Point]:
    """Bytes of an outbound per hour."""
    first, last = int(since.timestamp()) // 3600, int(until.timestamp()) // 3600
    rows = await session.execute(
        select(OutboundTraffic.hour, OutboundTraffic.up_bytes, OutboundTraffic.down_bytes).where(
            OutboundTraffic.server_id == server_id,
            OutboundTraffic.tag == tag,
            OutboundTraffic.hour.between(first, last),
        )
    )
    found = {hour: (up, down) for hour, up, down in rows}
    return [
        Point(datetime.fromtimestamp(hour * 3600, UTC), *found.get(hour, (0, 0))) for hour in range(first, last + 1)
    ]


async def list_top_clients(
    session: AsyncSession, since: datetime, count: int, *, server_id: int | None = None
) -> list[tuple[int, Bytes]]:
    """Clients with the most bytes since that day began, most first."""
    up, down = func.sum(TrafficDaily.up_bytes), func.sum(TrafficDaily.down_bytes)
    query = (
        select(TrafficDaily.client_ref, up, down)
        .where(TrafficDaily.day >= int(since.timestamp()) // 86400)
        .group_by(TrafficDaily.client_ref)
        .order_by((up + down).desc(), TrafficDaily.client_ref)
        .limit(count)
    )
    if server_id is not None:
        query = query.where(TrafficDaily.server_id == server_id)
    return [(ref, Bytes(int(ups), int(downs))) for ref, ups, downs in await session.execute(query)]


async def list_gaps(session: AsyncSession, server_id: int | None, since: datetime) -> Sequence[LedgerGap]:
    """Times whose bytes nobody can know, newest first; of all servers for None."""
    query = select(LedgerGap).where(LedgerGap.to_at >= since).order_by(LedgerGap.to_at.desc()).limit(500)
    if server_id is not None:
        query = query.where(LedgerGap.server_id == server_id)
    return (await session.scalars(query)).all()


async def find_rates(session: AsyncSession, server_ids: Collection[int], now: datetime) -> dict[int, Bytes]:
    """Bytes per second of these servers over the last minutes: what any controller can tell. See also `live`."""
    minute = int(now.timestamp()) // 60
    seconds = 60 * (RATE_MINUTES - 1) + max(1, int(now.timestamp()) % 60)
    rows = await session.execute(
        select(ServerMinute.server_id, func.sum(ServerMinute.up_bytes), func.sum(ServerMinute.down_bytes))
        .where(ServerMinute.server_id.in_(server_ids), ServerMinute.minute > minute - RATE_MINUTES)
        .group_by(ServerMinute.server_id)
    )
    return {server_id: Bytes(int(up) // seconds, int(down) // seconds) for server_id, up, down in rows}


def _source(step: Step) -> tuple[Any, Any]:
    if step == "minute":
        return ServerMinute, ServerMinute.minute
    return (TrafficHourly, TrafficHourly.hour) if step == "hour" else (TrafficDaily, TrafficDaily.day)


def _conditions(table: Any, scope: Scope) -> Iterable[Any]:
    if scope.server_id is not None:
        yield table.server_id == scope.server_id
    if table is ServerMinute:
        if scope.client_ref is not None or scope.inbound_ref is not None:
            raise ValueError("minutes are kept per server only")
        return
    if scope.client_ref is not None:
        yield table.client_ref == scope.client_ref
    if scope.inbound_ref is not None:
        yield table.inbound_ref == scope.inbound_ref


def _parts(values: Iterable[Any]) -> list[list[Any]]:
    ordered = sorted(values)
    return [ordered[start : start + IN_LIST] for start in range(0, len(ordered), IN_LIST)]
