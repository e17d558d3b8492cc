"""SQL behind the frame of every page and behind the dashboard's totals."""

from collections.abc import Iterable

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.clients.models import Client
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.servers.models import Server


async def count_servers(session: AsyncSession) -> int:
    """How many servers there are."""
    return await session.scalar(select(func.count()).select_from(Server)) or 0


async def count_clients(session: AsyncSession) -> int:
    """How many clients there are."""
    return await session.scalar(select(func.count()).select_from(Client)) or 0


async def count_inbounds(session: AsyncSession) -> int:
    """How many inbounds there are."""
    return await session.scalar(select(func.count()).select_from(Inbound)) or 0


async def server_names(session: AsyncSession) -> dict[int, str]:
    """Name by server id, in the order of ids."""
    rows = await session.execute(select(Server.id, Server.name).order_by(Server.id))
    return {server_id: name for server_id, name in rows}


async def client_refs(session: AsyncSession, client_ids: Iterable[int]) -> dict[int, int]:
    """Ref by client id."""
    rows = await session.execute(select(Client.id, Client.ref).where(Client.id.in_(list(client_ids))))
    return {client_id: ref for client_id, ref in rows}
