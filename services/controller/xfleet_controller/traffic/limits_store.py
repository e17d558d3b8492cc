"""Every statement of limits and allowances."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import and_, exists, func, literal, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.clients.models import Client, ClientInbound
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.servers.models import Server
from xfleet_controller.tables import Base
from xfleet_controller.traffic.models import (
    AllowanceRow,
    ClientTotal,
    LedgerBody,
    LedgerCursor,
    LedgerKey,
    LimitAct,
)

QUOTA = "quota"
BODIES_ABOVE_COUNT = 500
IN_LIST = 400

_USED = func.coalesce(ClientTotal.period_up_bytes + ClientTotal.period_down_bytes, 0)


class Usage(msgspec.Struct, frozen=True):
    """A client's quota and what it used of it in this period."""

    ref: int
    name: str
    total_bytes: int | None
    """None and 0: unlimited."""
    used_bytes: int
    period_started_at: datetime | None
    cut_reason: str | None

    @property
    def period_key(self) -> str:
        """What makes the act of passing this limit in this period unique."""
        started = int(self.period_started_at.timestamp()) if self.period_started_at else 0
        return f"{started}:{self.total_bytes}"

    @property
    def is_over(self) -> bool:
        """Whether the quota is used up."""
        return bool(self.total_bytes) and self.used_bytes >= (self.total_bytes or 0)


class Told(msgspec.Struct, frozen=True):
    """An allowance as it was last decided."""

    serial: int
    allowance_bytes: int | None
    decided_at: datetime


async def list_depleted(session: AsyncSession, refs: Collection[int] | None) -> list[Usage]:
    """Clients, or those of these, that used their quota up and are not cut."""
    return await _usages(session, refs, Client.cut_reason.is_(None), Client.total_bytes <= _USED)


async def list_refilled(session: AsyncSession) -> list[Usage]:
    """Clients cut by their quota that have some again."""
    has_some = or_(Client.total_bytes.is_(None), Client.total_bytes > _USED)
    return await _usages(session, None, Client.cut_reason == QUOTA, has_some)


async def find_usage(session: AsyncSession, ref: int) -> Usage | None:
    """One client's."""
    found = await _usages(session, [ref])
    return found[0] if found else None


async def note_act(session: AsyncSession, usage: Usage, now: datetime) -> None:
    """Writes down that a limit acted, once per period and limit."""
    await session.execute(
        _insert(session, LimitAct)
        .values(
            client_ref=usage.ref,
            rule=QUOTA,
            period_key=usage.period_key,
            acted_at=now,
            details={"total_bytes": usage.total_bytes, "used_bytes": usage.used_bytes},
        )
        .on_conflict_do_nothing()
    )


async def begin_period(session: AsyncSession, refs: Collection[int], now: datetime) -> None:
    """Starts a new period: nothing is used yet, and what ended before now counts in history only."""
    insert = _insert(session, ClientTotal)
    fresh = {"period_up_bytes": 0, "period_down_bytes": 0, "period_started_at": now}
    statement = insert.on_conflict_do_update(index_elements=["client_ref"], set_=fresh)
    rows = [{"client_ref": ref, "up_bytes": 0, "down_bytes": 0, **fresh} for ref in sorted(refs)]
    if rows:
        await session.execute(statement, rows)


async def list_usages(
    session: AsyncSession, refs: Collection[int] | None, *, near_share: float, near_bytes: int, every: bool
) -> list[Usage]:
    """Clients (of these) that are near their quota or of which some server holds an allowance; or `every` one."""
    if every:
        return await _usages(session, refs)
    left = Client.total_bytes - _USED
    near = and_(Client.total_bytes > 0, or_(left < Client.total_bytes * near_share, left < near_bytes))
    told = exists().where(AllowanceRow.client_ref == Client.ref, AllowanceRow.allowance_bytes.is_not(None))
    return await _usages(session, refs, or_(near, told))


async def list_places(session: AsyncSession, refs: Sequence[int], *, every: bool) -> dict[int, list[tuple[int, str]]]:
    """Server id and slug of every server each of these clients is on, or that holds an allowance (or `every` held)."""
    found: dict[int, set[tuple[int, str]]] = {}
    for part in _parts(refs):
        on = (
            select(Client.ref, Server.id, Server.slug)
            .join(ClientInbound, ClientInbound.client_id == Client.id)
            .join(Inbound, Inbound.id == ClientInbound.inbound_id)
            .join(Server, Server.id == Inbound.server_id)
            .where(Client.ref.in_(part))
        )
        held = (
            select(AllowanceRow.client_ref, Server.id, Server.slug)
            .join(Server, Server.id == AllowanceRow.server_id)
            .where(AllowanceRow.client_ref.in_(part), or_(literal(every), AllowanceRow.allowance_bytes.is_not(None)))
        )
        for ref, server_id, slug in [*await session.execute(on), *await session.execute(held)]:
            found.setdefault(ref, set()).add((server_id, slug))
    return {ref: sorted(places) for ref, places in found.items()}


async def list_told(session: AsyncSession, refs: Sequence[int]) -> dict[tuple[int, int], Told]:
    """Allowances decided last, by server and client."""
    found: dict[tuple[int, int], Told] = {}
    for part in _parts(refs):
        rows = await session.scalars(select(AllowanceRow).where(AllowanceRow.client_ref.in_(part)))
        found.update(
            ((row.server_id, row.client_ref), Told(row.serial, row.allowance_bytes, row.decided_at)) for row in rows
        )
    return found


async def list_refs_of_server(session: AsyncSession, slug: str) -> list[int]:
    """Clients with a quota on a server, and all of which it ever held an allowance."""
    on = (
        select(Client.ref)
        .join(ClientInbound, ClientInbound.client_id == Client.id)
        .join(Inbound, Inbound.id == ClientInbound.inbound_id)
        .join(Server, Server.id == Inbound.server_id)
        .where(Server.slug == slug, Client.total_bytes > 0)
    )
    held = select(AllowanceRow.client_ref).join(Server, Server.id == AllowanceRow.server_id).where(Server.slug == slug)
    return sorted({*(await session.scalars(on)), *(await session.scalars(held))})


async def list_refs_told(session: AsyncSession) -> list[int]:
    """Clients of which some server holds an allowance now."""
    held = select(AllowanceRow.client_ref).where(AllowanceRow.allowance_bytes.is_not(None)).distinct()
    return list(await session.scalars(held))


async def list_recently_told(session: AsyncSession, since: datetime) -> list[int]:
    """Clients about which something was decided since then."""
    return list(
        await session.scalars(select(AllowanceRow.client_ref).where(AllowanceRow.decided_at >= since).distinct())
    )


async def find_points(session: AsyncSession, server_ids: Collection[int]) -> dict[int, tuple[str, int]]:
    """Newest epoch with a floor, and that floor, by server."""
    rows = await session.execute(
        select(LedgerCursor.server_id, LedgerCursor.epoch, LedgerCursor.floor)
        .where(LedgerCursor.server_id.in_(server_ids), LedgerCursor.floor > 0)
        .order_by(LedgerCursor.created_at, LedgerCursor.epoch)
    )
    return {server_id: (epoch, floor) for server_id, epoch, floor in rows}


async def list_bodies_above(
    session: AsyncSession, points: dict[int, tuple[str, int]]
) -> list[tuple[int, bytes | None, dict[str, Any] | None]]:
    """Server, body and skipped places of committed batches above these floors: there are any only beside a hole."""
    found: list[tuple[int, bytes | None, dict[str, Any] | None]] = []
    for server_id, (epoch, _) in sorted(points.items()):
        rows = await session.execute(
            select(LedgerBody.server_id, LedgerBody.body, LedgerBody.skipped)
            .join(
                LedgerKey,
                (LedgerKey.server_id == LedgerBody.server_id)
                & (LedgerKey.epoch == LedgerBody.epoch)
                & (LedgerKey.seq == LedgerBody.seq),
            )
            .where(LedgerKey.server_id == server_id, LedgerKey.epoch == epoch)
            .limit(BODIES_ABOVE_COUNT)
        )
        found.extend((row[0], row[1], row[2]) for row in rows)
    return found


async def write_told(
    session: AsyncSession, rows: Iterable[tuple[int, int, int, int | None]], now: datetime, *, keep_moment: bool
) -> None:
    """Keeps server, client, serial and bytes of what is being told; a repetition keeps the moment of decision."""
    values = [
        {"server_id": s, "client_ref": c, "serial": serial, "allowance_bytes": allowed, "decided_at": now}
        for s, c, serial, allowed in sorted(rows, key=lambda row: row[:2])
    ]
    if not values:
        return
    insert = _insert(session, AllowanceRow)
    names = ("serial", "allowance_bytes") if keep_moment else ("serial", "allowance_bytes", "decided_at")
    statement = insert.on_conflict_do_update(
        index_elements=["server_id", "client_ref"], set_={name: insert.excluded[name] for name in names}
    )
    await session.execute(statement, values)


async def _usages(session: AsyncSession, refs: Collection[int] | None, *conditions: Any) -> list[Usage]:
    columns = (
        Client.ref,
        Client.name,
        Client.total_bytes,
        _USED,
        ClientTotal.period_started_at,
        Client.cut_reason,
    )
    query = (
        select(*columns)
        .outerjoin(ClientTotal, ClientTotal.client_ref == Client.ref)
        .where(*conditions)
        .order_by(Client.ref)
    )
    if refs is None:
        return [Usage(*row) for row in await session.execute(query)]
    found: list[Usage] = []
    for part in _parts(refs):
        found.extend(Usage(*row) for row in await session.execute(query.where(Client.ref.in_(part))))
    return found


def _insert(session: AsyncSession, table: type[Base]) -> Any:
    name = session.get_bind().dialect.name
    return sqlite.insert(table) if name == "sqlite" else postgresql.insert(table)


def _parts(values: Collection[int]) -> list[list[int]]:
    ordered = sorted(values)
    return [ordered[start : start + IN_LIST] for start in range(0, len(ordered), IN_LIST)]
