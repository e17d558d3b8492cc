"""SQL of imperative tasks: what was ordered by a verb."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.servers.models import Server
from xfleet_controller.tasks.models import ServerTask
from xfleet_controller.tasks.store import OPEN


class Waiting(NamedTuple):
    """An order that is not done."""

    id: int
    server_id: int
    sid: str
    verb: str
    status: str
    lease_until_at: datetime | None
    deadline_at: datetime | None


async def lock_server(session: AsyncSession, server_id: int) -> Server | None:
    """The server, so that nobody else orders from it until this transaction ends."""
    return await session.get(Server, server_id, with_for_update={"key_share": True})


async def list_pending(session: AsyncSession, server_id: int, verb: str) -> Sequence[ServerTask]:
    """Orders of that verb that have not been sent."""
    query = select(ServerTask).where(
        ServerTask.server_id == server_id, ServerTask.verb == verb, ServerTask.status == "pending"
    )
    return (await session.scalars(query.order_by(ServerTask.id))).all()


async def find_by_command(session: AsyncSession, server_id: int, command_id: str) -> ServerTask | None:
    """The order that was given under this id."""
    query = select(ServerTask).where(ServerTask.server_id == server_id, ServerTask.command_id == command_id)
    return await session.scalar(query.where(ServerTask.verb != "").limit(1))


async def list_waiting(session: AsyncSession) -> list[Waiting]:
    """Every order that is not done, oldest first."""
    query = (
        select(
            ServerTask.id,
            ServerTask.server_id,
            Server.slug,
            ServerTask.verb,
            ServerTask.status,
            ServerTask.lease_until_at,
            ServerTask.deadline_at,
        )
        .join(Server, Server.id == ServerTask.server_id)
        .where(ServerTask.status.in_(OPEN), ServerTask.verb != "")
        .order_by(ServerTask.id)
    )
    return [Waiting(*row) for row in await session.execute(query)]


async def claim(session: AsyncSession, task_id: int, owner: str, now: datetime, until: datetime) -> ServerTask | None:
    """The order, ours from now on; None when it is done, or another controller has it."""
    task = await session.scalar(
        select(ServerTask)
        .where(ServerTask.id == task_id, ServerTask.status.in_(OPEN))
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    if task is None or (task.lease_until_at is not None and task.lease_until_at > now and task.lease_owner != owner):
        return None
    if task.started_at is not None:
        task.retry_count += 1
    task.status, task.lease_owner, task.lease_until_at = "running", owner, until
    task.started_at = task.started_at or now
    return task


async def renew(session: AsyncSession, task_id: int, owner: str, until: datetime) -> None:
    """Keeps an order ours."""
    await session.execute(
        update(ServerTask)
        .where(ServerTask.id == task_id, ServerTask.lease_owner == owner, ServerTask.status == "running")
        .values(lease_until_at=until)
    )


async def change_ours(session: AsyncSession, task_id: int, owner: str, values: dict[str, Any]) -> bool:
    """Writes what became of an order; False when it is no longer ours."""
    done = await session.execute(
        update(ServerTask)
        .where(ServerTask.id == task_id, ServerTask.lease_owner == owner, ServerTask.status == "running")
        .values(**values)
    )
    return bool(done.rowcount)  # type: ignore[attr-defined]


async def free_all(session: AsyncSession) -> None:
    """Ends every lease: where there is only one controller, those of others are of the dead."""
    await session.execute(
        update(ServerTask).where(ServerTask.status == "running", ServerTask.verb != "").values(lease_until_at=None)
    )


async def count_open(session: AsyncSession, server_id: int) -> int:
    """How many orders to this server are not done."""
    query = select(func.count()).select_from(ServerTask)
    return (
        await session.scalar(
            query.where(ServerTask.server_id == server_id, ServerTask.verb != "", ServerTask.status.in_(OPEN))
        )
        or 0
    )
