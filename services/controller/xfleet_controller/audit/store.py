"""SQL of the audit log."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Select, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.codec import redact
from xfleet_controller.audit.models import AuditRow
from xfleet_controller.auth.rights import Actor
from xfleet_controller.trace import current_trace_id


def note(
    session: AsyncSession,
    actor: Actor,
    action: str,
    kind: str,
    object_id: str,
    now: datetime,
    *,
    name: str = "",
    before: Any = None,
    after: Any = None,
    address: str = "",
) -> None:
    """Writes down who did what to what; before and after are redacted here."""
    session.add(
        AuditRow(
            at=now,
            actor=actor.label[:100],
            address=(address or actor.address)[:64],
            action=action,
            object_kind=kind,
            object_id=object_id[:64],
            object_name=name[:200],
            before=redact(before),
            after=redact(after),
            trace_id=current_trace_id(),
        )
    )


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows of the audit log; what is empty does not narrow."""

    actor: str = ""
    """Part of the actor's name, as in `admin:anna`."""
    action: str = ""
    kind: str = ""
    subject: str = ""
    """Part of the object's name, or all of its id."""
    since_at: datetime | None = None
    until_at: datetime | None = None


async def list_rows(
    session: AsyncSession, wanted: AuditFilter, *, offset: int, limit: int
) -> tuple[Sequence[AuditRow], int]:
    """A page of rows, newest first, and how many there are."""
    query = _where(select(AuditRow), wanted)
    total = await session.scalar(select(func.count()).select_from(query.subquery())) or 0
    rows = await session.scalars(query.order_by(AuditRow.id.desc()).offset(offset).limit(limit))
    return rows.all(), total


async def list_before(
    session: AsyncSession, wanted: AuditFilter, before_id: int | None, limit: int
) -> Sequence[AuditRow]:
    """The next rows below an id, newest first: for reading through all of them while new ones come."""
    query = _where(select(AuditRow), wanted)
    if before_id is not None:
        query = query.where(AuditRow.id < before_id)
    return (await session.scalars(query.order_by(AuditRow.id.desc()).limit(limit))).all()


async def list_actions(session: AsyncSession) -> Sequence[str]:
    """Actions that occur."""
    return (await session.scalars(select(AuditRow.action).distinct().order_by(AuditRow.action))).all()


def _where(query: Select[tuple[AuditRow]], wanted: AuditFilter) -> Select[tuple[AuditRow]]:
    if wanted.actor:
        query = query.where(func.lower(AuditRow.actor).contains(wanted.actor.lower(), autoescape=True))
    if wanted.action:
        query = query.where(AuditRow.action == wanted.action)
    if wanted.kind:
        query = query.where(AuditRow.object_kind == wanted.kind)
    if wanted.subject:
        name = func.lower(AuditRow.object_name).contains(wanted.subject.lower(), autoescape=True)
        query = query.where(or_(name, AuditRow.object_id == wanted.subject))
    if wanted.since_at is not None:
        query = query.where(AuditRow.at >= wanted.since_at)
    if wanted.until_at is not None:
        query = query.where(AuditRow.at < wanted.until_at)
    return query
