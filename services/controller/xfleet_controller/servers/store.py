"""SQL of servers."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.clients.models import ClientInbound, Tombstone
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.servers.models import Server, ServerRevision
from xfleet_controller.traffic.models import LedgerCursor, TagTotal


class Known(NamedTuple):
    """What the loops need to know of every server."""

    id: int
    status: str
    """As it is stored."""
    mode: str = "active"
    retiring_at: datetime | None = None
    replaced: Any = None


async def list_servers(
    session: AsyncSession, *, search: str = "", region: str = ""
) -> Sequence[tuple[Server, ServerRevision]]:
    """All servers that match, by id."""
    query = select(Server, ServerRevision).join(ServerRevision, ServerRevision.server_id == Server.id)
    if search:
        columns = (Server.name, Server.slug, Server.public_address, Server.reported_address, Server.region)
        lowered = search.lower()
        query = query.where(or_(*(func.lower(column).contains(lowered, autoescape=True) for column in columns)))
    if region:
        query = query.where(Server.region == region)
    rows = await session.execute(query.order_by(Server.id))
    return [(row[0], row[1]) for row in rows]


async def list_regions_and_tags(session: AsyncSession) -> tuple[list[str], list[str]]:
    """Every region and every tag in use, sorted."""
    rows = (await session.execute(select(Server.region, Server.tags))).all()
    regions = {region for region, _ in rows if region}
    tags = {tag for _, listed in rows for tag in listed}
    return sorted(regions, key=str.casefold), sorted(tags, key=str.casefold)


async def find_server(session: AsyncSession, server_id: int) -> tuple[Server, ServerRevision] | None:
    """A server with its revision row."""
    row = (
        await session.execute(
            select(Server, ServerRevision)
            .join(ServerRevision, ServerRevision.server_id == Server.id)
            .where(Server.id == server_id)
        )
    ).first()
    return None if row is None else (row[0], row[1])


async def find_by_slug(session: AsyncSession, slug: str) -> Server | None:
    """The server of that slug."""
    return await session.scalar(select(Server).where(Server.slug == slug))


async def is_slug_free(session: AsyncSession, slug: str) -> bool:
    """Whether no server has or had this slug."""
    if await find_by_slug(session, slug) is not None:
        return False
    return await session.get(Tombstone, ("server", slug)) is None


async def unused_id(session: AsyncSession) -> int:
    """An id no server had before: SQLite, unlike a sequence, gives that of the newest again once it is deleted."""
    held = (
        select(func.max(Server.id)),
        select(func.max(Tombstone.server_id)).where(Tombstone.kind == "server"),
        select(func.max(LedgerCursor.server_id)),
        select(func.max(TagTotal.server_id)),
    )
    return 1 + max([await session.scalar(each) or 0 for each in held])


async def is_retiring(session: AsyncSession, server_id: int) -> bool:
    """Whether the server is being deleted, as it is stored now."""
    return await session.scalar(select(Server.retiring_at).where(Server.id == server_id)) is not None


async def is_name_taken(session: AsyncSession, name: str, *, but: int | None = None) -> bool:
    """Whether another server is called that, in any case."""
    query = select(Server.id).where(func.lower(Server.name) == name.lower())
    if but is not None:
        query = query.where(Server.id != but)
    return await session.scalar(query) is not None


async def is_address_taken(session: AsyncSession, address: str, *, but: int | None = None) -> bool:
    """Whether another server has this public address, in any case."""
    query = select(Server.id).where(func.lower(Server.public_address) == address.lower())
    if but is not None:
        query = query.where(Server.id != but)
    return await session.scalar(query.limit(1)) is not None


async def list_slugs(session: AsyncSession) -> dict[str, Known]:
    """What the loops need to know, by slug."""
    columns = (Server.slug, Server.id, Server.status, Server.mode, Server.retiring_at, Server.replaced)
    return {row[0]: Known(*row[1:]) for row in await session.execute(select(*columns))}


async def lock_points(session: AsyncSession, server_ids: list[int]) -> list[int]:
    """Locks the revision rows of these servers; the ids of those that are there, in order."""
    ours = select(ServerRevision.server_id).where(ServerRevision.server_id.in_(server_ids))
    return list(await session.scalars(ours.order_by(ServerRevision.server_id).with_for_update()))


async def update_presence(session: AsyncSession, values: list[dict[str, Any]]) -> None:
    """Writes what beats told, set-based; `values` are rows by primary key `id`."""
    if values:
        await session.execute(update(Server), values)


async def update_points(session: AsyncSession, values: list[dict[str, Any]]) -> None:
    """Writes what beats told about revisions, set-based; `values` are rows by primary key `server_id`."""
    if values:
        await session.execute(update(ServerRevision), values)


async def move_status(session: AsyncSession, server_id: int, status: str) -> bool:
    """Sets a status; False when another controller already did."""
    done = await session.execute(
        update(Server).where(Server.id == server_id, Server.status != status).values(status=status)
    )
    return bool(done.rowcount)  # type: ignore[attr-defined]


async def count_clients(session: AsyncSession) -> dict[int, int]:
    """How many clients each server has."""
    rows = await session.execute(
        select(Inbound.server_id, func.count(func.distinct(ClientInbound.client_id)))
        .join(ClientInbound, ClientInbound.inbound_id == Inbound.id)
        .group_by(Inbound.server_id)
    )
    return dict(rows.all())


async def note_error(session: AsyncSession, server_id: int, text: str, now: datetime) -> None:
    """Writes what last went wrong with a server."""
    await session.execute(update(Server).where(Server.id == server_id).values(last_error=text[:1000], updated_at=now))


async def list_inbounds(session: AsyncSession, server_id: int) -> Sequence[tuple[Inbound, int]]:
    """The inbounds of a server, each with how many clients it has."""
    rows = await session.execute(
        select(Inbound, func.count(ClientInbound.client_id))
        .outerjoin(ClientInbound, ClientInbound.inbound_id == Inbound.id)
        .where(Inbound.server_id == server_id)
        .group_by(Inbound.id)
        .order_by(Inbound.sort_order, Inbound.id)
    )
    return [(row[0], row[1]) for row in rows]
