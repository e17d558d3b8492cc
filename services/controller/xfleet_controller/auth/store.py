"""SQL of admins and sessions."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.auth.models import Admin, ApiToken, RecoveryCode, Session
from xfleet_controller.auth.rights import OWNER


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


async def lock_owners(session: AsyncSession) -> list[Admin]:
    """Owners who may sign in, held until the transaction ends: two who demote each other come one after the other."""
    query = select(Admin).where(Admin.role == OWNER, Admin.enabled.is_(True)).order_by(Admin.id).with_for_update()
    return list((await session.scalars(query.execution_options(populate_existing=True))).all())


async def end_everything(session: AsyncSession, admin_id: int, now: datetime) -> None:
    """Ends all sessions of an admin and revokes all API tokens."""
    await delete_sessions(session, admin_id=admin_id)
    tokens = update(ApiToken).where(ApiToken.admin_id == admin_id, ApiToken.revoked_at.is_(None))
    await session.execute(tokens.values(revoked_at=now))


async def end_others(session: AsyncSession, admin_id: int, now: datetime, *, except_sha256: str) -> None:
    """Ends an admin's other sessions, and revokes the API tokens made in the panel.

    Those without an end were made by root on this machine, for its command line: they stay.
    """
    await delete_sessions(session, admin_id=admin_id, except_sha256=except_sha256)
    tokens = update(ApiToken).where(
        ApiToken.admin_id == admin_id, ApiToken.revoked_at.is_(None), ApiToken.expires_at.is_not(None)
    )
    await session.execute(tokens.values(revoked_at=now))


async def find_token(session: AsyncSession, token_sha256: str) -> tuple[ApiToken, Admin] | None:
    """An API token and its admin."""
    query = select(ApiToken, Admin).join(Admin, Admin.id == ApiToken.admin_id)
    row = (await session.execute(query.where(ApiToken.token_sha256 == token_sha256))).first()
    return None if row is None else (row[0], row[1])


async def touch_token(session: AsyncSession, token_id: int, now: datetime) -> None:
    """Notes that an API token was used."""
    await session.execute(update(ApiToken).where(ApiToken.id == token_id).values(last_used_at=now))


async def list_tokens(session: AsyncSession, admin_id: int) -> Sequence[ApiToken]:
    """An admin's API tokens that were not revoked, newest first."""
    query = select(ApiToken).where(ApiToken.admin_id == admin_id, ApiToken.revoked_at.is_(None))
    return (await session.scalars(query.order_by(ApiToken.id.desc()))).all()


async def delete_old_tokens(session: AsyncSession, before: datetime) -> None:
    """Drops API tokens that ended before this."""
    await session.execute(delete(ApiToken).where(or_(ApiToken.revoked_at < before, ApiToken.expires_at < before)))


async def use_recovery_code(session: AsyncSession, admin_id: int, code_sha256: str, now: datetime) -> bool:
    """Uses up a recovery code; whether it was there and unused."""
    done = await session.execute(
        update(RecoveryCode)
        .where(
            RecoveryCode.admin_id == admin_id, RecoveryCode.code_sha256 == code_sha256, RecoveryCode.used_at.is_(None)
        )
        .values(used_at=now)
    )
    return bool(done.rowcount)  # type: ignore[attr-defined]


async def replace_recovery_codes(session: AsyncSession, admin_id: int, hashes: Iterable[str], now: datetime) -> None:
    """From now on these recovery codes, and no older ones."""
    await session.execute(delete(RecoveryCode).where(RecoveryCode.admin_id == admin_id))
    session.add_all(RecoveryCode(admin_id=admin_id, code_sha256=each, created_at=now) for each in hashes)


async def count_recovery_codes(session: AsyncSession, admin_id: int) -> int:
    """How many recovery codes are left."""
    query = select(func.count()).select_from(RecoveryCode)
    return await session.scalar(query.where(RecoveryCode.admin_id == admin_id, RecoveryCode.used_at.is_(None))) or 0
