"""SQL of clients."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Select, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.clients.models import Client, ClientInbound
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.servers.models import Server, StrayEntity
from xfleet_controller.sql import batches
from xfleet_controller.traffic.models import ClientTotal

EXPIRING_WITHIN = timedelta(days=3)
EXPIRING_SHARE = 0.9
"""A client that used this share of its quota is `expiring`."""
SORTS = ("id", "name", "created_at", "expires_at", "used")


class Usage(NamedTuple):
    """A client's bytes: since its last reset, and for ever."""

    up_bytes: int = 0
    down_bytes: int = 0
    all_time_up_bytes: int = 0
    all_time_down_bytes: int = 0
    last_online_at: datetime | None = None

    @property
    def used_bytes(self) -> int:
        """What counts against the quota."""
        return self.up_bytes + self.down_bytes


class Place(NamedTuple):
    """A client on an inbound of a server."""

    link: ClientInbound
    inbound: Inbound
    server: Server


async def list_clients(
    session: AsyncSession,
    *,
    now: datetime,
    search: str,
    state: str,
    inbound_id: int | None,
    server_id: int | None,
    sort: str,
    offset: int,
    limit: int,
) -> tuple[Sequence[Client], int]:
    """A page of clients, and how many match."""
    query = select(Client).outerjoin(ClientTotal, ClientTotal.client_ref == Client.ref)
    if search:
        like = f"%{search.lower()}%"
        query = query.where(
            or_(Client.name_key.like(like), func.lower(Client.comment).like(like), Client.sub_id == search)
        )
    if state:
        query = query.where(_state_condition(state, now))
    if inbound_id is not None or server_id is not None:
        places = select(ClientInbound.client_id).join(Inbound, Inbound.id == ClientInbound.inbound_id)
        if inbound_id is not None:
            places = places.where(Inbound.id == inbound_id)
        if server_id is not None:
            places = places.where(Inbound.server_id == server_id)
        query = query.where(Client.id.in_(places))
    total = await session.scalar(select(func.count()).select_from(query.subquery())) or 0
    rows = await session.scalars(_sorted(query, sort).offset(offset).limit(limit))
    return rows.all(), total


async def find_by_ref(session: AsyncSession, ref: int) -> Client | None:
    """The client of this ref."""
    return await session.scalar(select(Client).where(Client.ref == ref))


async def find_by_sub_id(session: AsyncSession, sub_id: str) -> Client | None:
    """The client of this subscription."""
    return await session.scalar(select(Client).where(Client.sub_id == sub_id))


async def list_by_ids(session: AsyncSession, client_ids: Iterable[int]) -> Sequence[Client]:
    """These clients, by id."""
    found: list[Client] = []
    for part in batches(sorted(set(client_ids))):
        found.extend((await session.scalars(select(Client).where(Client.id.in_(part)).order_by(Client.id))).all())
    return found


async def is_name_taken(session: AsyncSession, name_key: str, *, but: int | None = None) -> bool:
    """Whether another client has this name."""
    query = select(Client.id).where(Client.name_key == name_key)
    if but is not None:
        query = query.where(Client.id != but)
    return await session.scalar(query) is not None


async def usage_of(session: AsyncSession, refs: Iterable[int]) -> dict[int, Usage]:
    """The bytes of these clients."""
    found: dict[int, Usage] = {}
    for part in batches(sorted(set(refs))):
        for row in await session.scalars(select(ClientTotal).where(ClientTotal.client_ref.in_(part))):
            found[row.client_ref] = Usage(
                row.period_up_bytes, row.period_down_bytes, row.up_bytes, row.down_bytes, row.last_online_at
            )
    return found


async def inbound_ids_of(session: AsyncSession, client_ids: Sequence[int]) -> dict[int, list[int]]:
    """The inbounds each client is on."""
    found: dict[int, list[int]] = {client_id: [] for client_id in client_ids}
    for part in batches(list(client_ids)):
        rows = await session.execute(
            select(ClientInbound.client_id, ClientInbound.inbound_id)
            .where(ClientInbound.client_id.in_(part))
            .order_by(ClientInbound.inbound_id)
        )
        for client_id, inbound_id in rows:
            found[client_id].append(inbound_id)
    return found


async def server_ids_of(session: AsyncSession, client_id: int) -> set[int]:
    """The servers a client is on, also as a stray."""
    rows = await session.scalars(
        select(Inbound.server_id)
        .join(ClientInbound, ClientInbound.inbound_id == Inbound.id)
        .where(ClientInbound.client_id == client_id)
    )
    servers = set(rows)
    ref = await session.scalar(select(Client.ref).where(Client.id == client_id))
    if ref is not None:
        of_client = StrayEntity.entity_id.startswith(f"{ref}.")
        query = select(StrayEntity.server_id).where(StrayEntity.kind == "client", of_client)
        servers.update(await session.scalars(query))
    return servers


async def places_of(session: AsyncSession, client_ids: Sequence[int]) -> Sequence[Place]:
    """Where these clients are, in the order of servers and inbounds."""
    found: list[Place] = []
    for part in batches(list(client_ids)):
        rows = await session.execute(
            select(ClientInbound, Inbound, Server)
            .join(Inbound, Inbound.id == ClientInbound.inbound_id)
            .join(Server, Server.id == Inbound.server_id)
            .where(ClientInbound.client_id.in_(part))
            .order_by(Server.id, Inbound.sort_order, Inbound.id)
        )
        found.extend(Place(row[0], row[1], row[2]) for row in rows)
    return found


async def list_overdue(session: AsyncSession, now: datetime, limit: int) -> Sequence[int]:
    """Refs of clients whose time is over and who are not cut yet."""
    query = select(Client.ref).where(Client.cut_reason.is_(None), Client.expires_at <= now)
    return (await session.scalars(query.order_by(Client.expires_at).limit(limit))).all()


async def count_clients(session: AsyncSession) -> int:
    """How many clients there are."""
    return await session.scalar(select(func.count()).select_from(Client)) or 0


def _sorted(query: Select[tuple[Client]], sort: str) -> Select[tuple[Client]]:
    descending = sort.startswith("-")
    used = func.coalesce(ClientTotal.period_up_bytes, 0) + func.coalesce(ClientTotal.period_down_bytes, 0)
    columns: dict[str, Any] = {
        "name": Client.name_key,
        "created_at": Client.created_at,
        "expires_at": Client.expires_at,
        "used": used,
    }
    column = columns.get(sort.lstrip("-"), Client.id)
    return query.order_by(column.desc() if descending else column, Client.id)


def _state_condition(state: str, now: datetime) -> Any:
    used = func.coalesce(ClientTotal.period_up_bytes, 0) + func.coalesce(ClientTotal.period_down_bytes, 0)
    expired = or_(
        Client.cut_reason == "expired",
        and_(Client.cut_reason.is_(None), func.coalesce(Client.expires_at <= now, False)),
    )
    depleted = Client.cut_reason == "quota"
    nearing = or_(
        func.coalesce(Client.expires_at <= now + EXPIRING_WITHIN, False),
        func.coalesce(used >= Client.total_bytes * EXPIRING_SHARE, False),
    )
    usable = and_(
        Client.enabled.is_(True), Client.cut_reason.is_(None), ~func.coalesce(Client.expires_at <= now, False)
    )
    return {
        "disabled": Client.enabled.is_(False),
        "depleted": and_(Client.enabled.is_(True), depleted),
        "expired": and_(Client.enabled.is_(True), expired),
        "expiring": and_(usable, nearing),
        "active": and_(usable, ~nearing),
    }.get(state, Client.id == -1)
