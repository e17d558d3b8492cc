"""SQL behind the frame of every page and behind the dashboard's totals."""

from collections import Counter
from collections.abc import Iterable

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.clients.models import Client, ClientInbound
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.servers.models import Server
from xfleet_controller.sql import batches


async def count_clients(session: AsyncSession) -> int:
    """How many clients there are."""
    return await session.scalar(select(func.count()).select_from(Client)) or 0


async def count_inbounds(session: AsyncSession) -> int:
    """How many inbounds there are."""
    return await session.scalar(select(func.count()).select_from(Inbound)) or 0


async def server_names(session: AsyncSession) -> dict[int, str]:
    """Name by server id, in the order of ids."""
    rows = await session.execute(select(Server.id, Server.name).order_by(Server.id))
    return {row.id: row.name for row in rows}


async def count_online_by_inbound(session: AsyncSession, refs: Iterable[int]) -> dict[int, int]:
    """How many of these clients are on each inbound, by inbound id."""
    counts: Counter[int] = Counter()
    for part in batches(sorted(refs)):
        rows = await session.execute(
            select(ClientInbound.inbound_id, func.count())
            .join(Client, Client.id == ClientInbound.client_id)
            .where(Client.ref.in_(part))
            .group_by(ClientInbound.inbound_id)
        )
        counts.update({row[0]: row[1] for row in rows})
    return dict(counts)
