"""SQL of rollouts."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.servers.models import Rollout, RolloutServer, Server
from xfleet_controller.sql import batches

RUNNING, PAUSED, COMPLETED, CANCELLED = "running", "paused", "completed", "cancelled"
ACTIVE = (RUNNING, PAUSED)
WAITING, ORDERED, WATCHING = "waiting", "running", "watching"
HEALTHY, FAILED, SKIPPED = "healthy", "failed", "skipped"
IN_FLIGHT = (ORDERED, WATCHING)


async def list_rollouts(session: AsyncSession, *, offset: int, limit: int) -> tuple[Sequence[Rollout], int]:
    """A page of rollouts, newest first, and how many there are."""
    total = await session.scalar(select(func.count()).select_from(Rollout)) or 0
    rows = await session.scalars(select(Rollout).order_by(Rollout.id.desc()).offset(offset).limit(limit))
    return rows.all(), total


async def list_servers(session: AsyncSession, rollout_id: int) -> list[tuple[RolloutServer, Server]]:
    """The servers of a rollout in their order."""
    rows = await session.execute(
        select(RolloutServer, Server)
        .join(Server, Server.id == RolloutServer.server_id)
        .where(RolloutServer.rollout_id == rollout_id)
        .order_by(RolloutServer.wave, RolloutServer.server_id)
    )
    return [(row[0], row[1]) for row in rows]


async def count_by_status(session: AsyncSession, rollout_ids: Sequence[int]) -> dict[int, dict[str, int]]:
    """How many servers of each rollout are in which status."""
    counts: dict[int, dict[str, int]] = {}
    rows = await session.execute(
        select(RolloutServer.rollout_id, RolloutServer.status, func.count())
        .where(RolloutServer.rollout_id.in_(rollout_ids))
        .group_by(RolloutServer.rollout_id, RolloutServer.status)
    )
    for rollout_id, status, count in rows:
        counts.setdefault(rollout_id, {})[status] = count
    return counts


async def list_moving(session: AsyncSession) -> list[int]:
    """Rollouts that go on, or whose servers still have to be looked at."""
    in_flight = select(RolloutServer.rollout_id).where(RolloutServer.status.in_(IN_FLIGHT))
    query = select(Rollout.id).where(
        (Rollout.status == RUNNING) | ((Rollout.status.in_((PAUSED, CANCELLED))) & Rollout.id.in_(in_flight))
    )
    return list(await session.scalars(query.order_by(Rollout.id)))


async def lock(session: AsyncSession, rollout_id: int) -> Rollout | None:
    """The rollout, ours for this transaction; None when another controller moves it on just now."""
    return await session.scalar(select(Rollout).where(Rollout.id == rollout_id).with_for_update(skip_locked=True))


async def list_known(session: AsyncSession, server_ids: Sequence[int]) -> list[Server]:
    """Those servers that exist, by id."""
    return [
        server
        for part in batches(sorted(server_ids))
        for server in await session.scalars(select(Server).where(Server.id.in_(part)).order_by(Server.id))
    ]


async def list_all(session: AsyncSession) -> list[Server]:
    """All servers, by id."""
    return list(await session.scalars(select(Server).order_by(Server.id)))


async def find_busy(session: AsyncSession, server_ids: Sequence[int]) -> tuple[int, int] | None:
    """A rollout that is not over and one of these servers that is part of it."""
    for part in batches(list(server_ids)):
        row = (
            await session.execute(
                select(RolloutServer.rollout_id, RolloutServer.server_id)
                .join(Rollout, Rollout.id == RolloutServer.rollout_id)
                .where(Rollout.status.in_(ACTIVE), RolloutServer.server_id.in_(part))
                .limit(1)
            )
        ).first()
        if row is not None:
            return row[0], row[1]
    return None


async def forget_the_old(session: AsyncSession, before: datetime) -> None:
    """Drops rollouts that were over before this."""
    await session.execute(delete(Rollout).where(Rollout.completed_at < before))
