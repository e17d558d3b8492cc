"""SQL of inbounds."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.clients.models import Client, ClientInbound, Tombstone
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.sql import batches
from xfleet_controller.traffic.models import ClientInboundTotal
from xfleet_runtime.ids import new_ref


class Totals(NamedTuple):
    """Bytes in the clients' view."""

    up_bytes: int = 0
    down_bytes: int = 0


async def list_inbounds(
    session: AsyncSession, *, server_id: int | None, search: str, offset: int, limit: int
) -> tuple[Sequence[Inbound], int]:
    """A page of inbounds, and how many there are."""
    query = select(Inbound)
    if server_id is not None:
        query = query.where(Inbound.server_id == server_id)
    if search:
        like = f"%{search.lower()}%"
        query = query.where(or_(func.lower(Inbound.remark).like(like), Inbound.protocol.like(like)))
    total = await session.scalar(select(func.count()).select_from(query.subquery())) or 0
    rows = await session.scalars(query.order_by(Inbound.sort_order, Inbound.id).offset(offset).limit(limit))
    return rows.all(), total


async def list_by_ids(session: AsyncSession, inbound_ids: Iterable[int]) -> Sequence[Inbound]:
    """These inbounds, by id."""
    found: list[Inbound] = []
    for ids in batches(sorted(set(inbound_ids))):
        found.extend((await session.scalars(select(Inbound).where(Inbound.id.in_(ids)).order_by(Inbound.id))).all())
    return found


async def list_of_server(session: AsyncSession, server_id: int) -> Sequence[Inbound]:
    """All inbounds of a server."""
    return (await session.scalars(select(Inbound).where(Inbound.server_id == server_id).order_by(Inbound.id))).all()


async def list_links(session: AsyncSession, inbound_id: int) -> Sequence[tuple[Client, ClientInbound]]:
    """The clients on an inbound with their credentials."""
    rows = await session.execute(
        select(Client, ClientInbound)
        .join(ClientInbound, ClientInbound.client_id == Client.id)
        .where(ClientInbound.inbound_id == inbound_id)
    )
    return [(row[0], row[1]) for row in rows]


async def count_clients(session: AsyncSession, inbound_ids: Sequence[int]) -> dict[int, int]:
    """How many clients each inbound has."""
    rows = await session.execute(
        select(ClientInbound.inbound_id, func.count())
        .where(ClientInbound.inbound_id.in_(inbound_ids))
        .group_by(ClientInbound.inbound_id)
    )
    return dict(rows.all())


async def sum_totals(session: AsyncSession, refs: Sequence[int]) -> dict[int, Totals]:
    """Bytes of all clients on each inbound."""
    rows = await session.execute(
        select(
            ClientInboundTotal.inbound_ref,
            func.sum(ClientInboundTotal.up_bytes),
            func.sum(ClientInboundTotal.down_bytes),
        )
        .where(ClientInboundTotal.inbound_ref.in_(refs))
        .group_by(ClientInboundTotal.inbound_ref)
    )
    return {ref: Totals(int(up or 0), int(down or 0)) for ref, up, down in rows}


async def unused_ref(session: AsyncSession, kind: type[Inbound] | type[Client], word: str) -> int:
    """A ref nothing has or had."""
    while True:
        ref = new_ref()
        taken = await session.scalar(select(kind.id).where(kind.ref == ref))
        if taken is None and await session.get(Tombstone, (word, str(ref))) is None:
            return ref
