"""SQL of servers."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.clients.models import Client, ClientInbound, Tombstone
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.servers.models import Server, ServerRevision


async def list_servers(
    session: AsyncSession, *, search: str = "", offset: int = 0, limit: int = 1000
) -> tuple[Sequence[tuple[Server, ServerRevision]], int]:
    """A page of servers by id, and how many there are."""
    query = select(Server, ServerRevision).join(ServerRevision, ServerRevision.server_id == Server.id)
    if search:
        like = f"%{search.lower()}%"
        query = query.where(or_(func.lower(Server.name).like(like), Server.slug.like(like)))
    total = await session.scalar(select(func.count()).select_from(query.subquery())) or 0
    rows = await session.execute(query.order_by(Server.id).offset(offset).limit(limit))
    return [(row[0], row[1]) for row in rows], total


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


async def is_name_taken(session: AsyncSession, name: str, *, but: int | None = None) -> bool:
    """Whether another server is called that, in any case."""
    query = select(Server.id).where(func.lower(Server.name) == name.lower())
    if but is not None:
        query = query.where(Server.id != but)
    return await session.scalar(query) is not None


async def list_slugs(session: AsyncSession) -> dict[str, tuple[int, str]]:
    """Id and stored status by slug."""
    rows = await session.execute(select(Server.slug, Server.id, Server.status))
    return {slug: (server_id, status) for slug, server_id, status in rows}


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
        .join(Client, Client.id == ClientInbound.client_id)
        .group_by(Inbound.server_id)
    )
    return dict(rows.all())


async def note_error(session: AsyncSession, server_id: int, text: str, now: datetime) -> None:
    """Writes what last went wrong with a server."""
    await session.execute(update(Server).where(Server.id == server_id).values(last_error=text[:1000], updated_at=now))


async def has_inbounds(session: AsyncSession, server_id: int) -> bool:
    """Whether the server has an inbound."""
    return await session.scalar(select(Inbound.id).where(Inbound.server_id == server_id).limit(1)) is not None
