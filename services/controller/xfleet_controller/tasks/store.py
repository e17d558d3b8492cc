"""SQL of server tasks."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.tasks.models import ServerTask

OPEN = ("pending", "running")
DONE = ("completed", "degraded", "failed", "expired", "cancelled")
STATUSES = (*OPEN, *DONE)


class TaskFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which tasks to list; what is left out takes all."""

    server_id: int | None = None
    status: str = ""
    operation: str = ""
    """What a person did, or a verb."""
    actor: str = ""
    """As on the task (`admin:alice`), or the name alone."""
    since: datetime | None = None
    until: datetime | None = None
    trace_id: str = ""


async def list_tasks(
    session: AsyncSession, wanted: TaskFilter, *, offset: int, limit: int
) -> tuple[Sequence[ServerTask], int]:
    """A page of tasks, newest first, and how many there are."""
    query = select(ServerTask)
    if wanted.server_id is not None:
        query = query.where(ServerTask.server_id == wanted.server_id)
    if wanted.status:
        query = query.where(ServerTask.status == wanted.status)
    if wanted.operation:
        query = query.where(ServerTask.operation == wanted.operation)
    if wanted.actor:
        query = query.where(_is_by(wanted.actor))
    if wanted.since is not None:
        query = query.where(ServerTask.created_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(ServerTask.created_at < wanted.until)
    if wanted.trace_id:
        query = query.where(ServerTask.trace_id == wanted.trace_id)
    total = await session.scalar(select(func.count()).select_from(query.subquery())) or 0
    rows = await session.scalars(query.order_by(ServerTask.id.desc()).offset(offset).limit(limit))
    return rows.all(), total


def _is_by(actor: str) -> ColumnElement[bool]:
    """Whoever is named so, by whichever way they came."""
    names = [actor] if ":" in actor else [actor, f"admin:{actor}", f"bot:{actor}"]
    by_token = ServerTask.actor.startswith(f"token:{actor}/", autoescape=True)
    return ServerTask.actor.in_(names) | by_token


async def list_by_ids(session: AsyncSession, task_ids: Iterable[int]) -> Sequence[ServerTask]:
    """These tasks."""
    query = select(ServerTask).where(ServerTask.id.in_(list(task_ids))).order_by(ServerTask.id)
    return (await session.scalars(query)).all()


async def count_open(session: AsyncSession) -> int:
    """Tasks that are not done."""
    return await session.scalar(select(func.count()).select_from(ServerTask).where(ServerTask.status.in_(OPEN))) or 0


async def list_open_until(session: AsyncSession, server_id: int, revision: int) -> Sequence[ServerTask]:
    """Changes of state at or before this revision that are not done."""
    query = select(ServerTask).where(
        ServerTask.server_id == server_id, ServerTask.status.in_(OPEN), ServerTask.revision <= revision
    )
    return (await session.scalars(query.order_by(ServerTask.id))).all()


async def mark_running(
    session: AsyncSession, server_id: int, revision: int, *, command_id: str, owner: str, now: datetime
) -> None:
    """The changes up to this revision are on their way."""
    await session.execute(
        update(ServerTask)
        .where(ServerTask.server_id == server_id, ServerTask.status.in_(OPEN), ServerTask.revision <= revision)
        .values(
            status="running",
            command_id=command_id,
            lease_owner=owner,
            started_at=func.coalesce(ServerTask.started_at, now),
        )
    )


async def mark_waiting(session: AsyncSession, server_id: int, reason: dict[str, Any]) -> None:
    """What was on its way did not get through and waits again."""
    await session.execute(
        update(ServerTask)
        .where(ServerTask.server_id == server_id, ServerTask.status == "running", ServerTask.revision.is_not(None))
        .values(status="pending", lease_owner="", retry_count=ServerTask.retry_count + 1, error=reason)
    )


async def forget_the_old(session: AsyncSession, before: datetime) -> None:
    """Drops tasks that came to their end before this."""
    await session.execute(delete(ServerTask).where(ServerTask.status.in_(DONE), ServerTask.completed_at < before))


async def expire_overdue(session: AsyncSession, now: datetime) -> int:
    """Imperative tasks past their deadline that nobody carries out at this moment; how many."""
    done = await session.execute(
        update(ServerTask)
        .where(
            ServerTask.status.in_(OPEN),
            ServerTask.deadline_at.is_not(None),
            ServerTask.deadline_at < now,
            or_(ServerTask.lease_until_at.is_(None), ServerTask.lease_until_at < now),
        )
        .values(
            status="expired",
            completed_at=now,
            lease_until_at=None,
            order_sealed=None,
            error={"code": "expired", "message": "The server did not come back in time."},
        )
    )
    return done.rowcount  # type: ignore[attr-defined]


async def list_operations(session: AsyncSession) -> list[str]:
    """What was ever ordered and is still remembered."""
    return list(await session.scalars(select(ServerTask.operation).distinct().order_by(ServerTask.operation)))


async def cancel_pending(session: AsyncSession, task_id: int, now: datetime, error: dict[str, Any]) -> bool:
    """Takes an order back that was not sent yet; False when it is too late."""
    done = await session.execute(
        update(ServerTask)
        .where(ServerTask.id == task_id, ServerTask.status == "pending", ServerTask.verb != "")
        .values(status="cancelled", completed_at=now, order_sealed=None, error=error)
    )
    return bool(done.rowcount)  # type: ignore[attr-defined]
