"""SQL about several admins."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.auth.models import Admin, ApiToken, Session


class Counts(NamedTuple):
    """What acts in an admin's name."""

    sessions: int = 0
    tokens: int = 0


async def list_admins(session: AsyncSession) -> Sequence[Admin]:
    """All admins by name."""
    return (await session.scalars(select(Admin).order_by(Admin.name_key))).all()


async def count_by_admin(session: AsyncSession, now: datetime) -> dict[int, Counts]:
    """Open sessions and working API tokens per admin."""
    open_sessions = select(Session.admin_id, func.count()).where(Session.expires_at > now).group_by(Session.admin_id)
    working = select(ApiToken.admin_id, func.count()).where(
        ApiToken.revoked_at.is_(None), ApiToken.expires_at.is_(None) | (ApiToken.expires_at > now)
    )
    sessions = dict((await session.execute(open_sessions)).all())
    tokens = dict((await session.execute(working.group_by(ApiToken.admin_id))).all())
    return {each: Counts(sessions.get(each, 0), tokens.get(each, 0)) for each in sessions.keys() | tokens.keys()}


async def find_invited(session: AsyncSession, invite_sha256: str, now: datetime, *, hold: bool = False) -> Admin | None:
    """The admin a link invites, if it still holds."""
    query = select(Admin).where(
        Admin.invite_sha256 == invite_sha256, Admin.invite_expires_at > now, Admin.enabled.is_(True)
    )
    if hold:
        query = query.with_for_update().execution_options(populate_existing=True)
    return await session.scalar(query)
