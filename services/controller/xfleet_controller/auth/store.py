"""SQL of admins and sessions."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.auth.models import Admin, Session


async def find_admin(session: AsyncSession, name: str) -> Admin | None:
    """The admin of that name, in any case."""
    return await session.scalar(select(Admin).where(Admin.name_key == name.lower()))


async def count_admins(session: AsyncSession) -> int:
    """How many admins there are."""
    return await session.scalar(select(func.count()).select_from(Admin)) or 0


async def find_session(session: AsyncSession, token_sha256: str) -> tuple[Session, Admin] | None:
    """A session and its admin."""
    row = (
        await session.execute(
            select(Session, Admin).join(Admin, Admin.id == Session.admin_id).where(Session.token_sha256 == token_sha256)
        )
    ).first()
    return None if row is None else (row[0], row[1])


async def has_session_from(session: AsyncSession, admin_id: int, address: str, now: datetime) -> bool:
    """Whether an admin is signed in from this address."""
    query = select(Session.admin_id).where(
        Session.admin_id == admin_id, Session.address == address, Session.expires_at > now
    )
    return await session.scalar(query.limit(1)) is not None


async def list_sessions(session: AsyncSession, admin_id: int) -> Sequence[Session]:
    """Where an admin is signed in, newest use first."""
    query = select(Session).where(Session.admin_id == admin_id).order_by(Session.last_used_at.desc())
    return (await session.scalars(query)).all()


async def touch_session(session: AsyncSession, token_sha256: str, now: datetime) -> None:
    """Notes that a session was used."""
    await session.execute(update(Session).where(Session.token_sha256 == token_sha256).values(last_used_at=now))


async def delete_sessions(
    session: AsyncSession, *, token_sha256: str | None = None, admin_id: int | None = None, except_sha256: str = ""
) -> int:
    """Ends one session, or all of an admin but one; how many."""
    query = delete(Session).where(Session.token_sha256 != except_sha256)
    if token_sha256 is not None:
        query = query.where(Session.token_sha256 == token_sha256)
    if admin_id is not None:
        query = query.where(Session.admin_id == admin_id)
    return (await session.execute(query)).rowcount  # type: ignore[attr-defined]


async def delete_expired(session: AsyncSession, now: datetime, idle_before: datetime) -> None:
    """Drops sessions that are over."""
    await session.execute(delete(Session).where((Session.expires_at <= now) | (Session.last_used_at < idle_before)))
