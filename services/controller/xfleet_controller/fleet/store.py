"""SQL of settings, fleet secrets, identities and revocations."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import and_, case, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.fleet.models import Certificate, EnrollmentToken, FleetSecret, Revocation, Setting
from xfleet_controller.servers.models import Server
from xfleet_controller.sql import batches, insert_into


async def find_setting(session: AsyncSession, key: str) -> Any:
    """The value of a setting; None when it was never set."""
    return await session.scalar(select(Setting.value).where(Setting.key == key))


async def set_setting(session: AsyncSession, key: str, value: Any, now: datetime) -> None:
    """Writes a setting."""
    statement = insert_into(session, Setting).values(key=key, value=value, updated_at=now)
    await session.execute(
        statement.on_conflict_do_update(index_elements=["key"], set_={"value": value, "updated_at": now})
    )


async def find_secret(session: AsyncSession, name: str) -> bytes | None:
    """A sealed secret."""
    return await session.scalar(select(FleetSecret.sealed).where(FleetSecret.name == name))


async def claim_token(session: AsyncSession, token_id: str, nkey: str, key_sha256: str, now: datetime) -> bool:
    """Uses the token up for these keys; False when it is unknown, used or expired."""
    done = await session.execute(
        update(EnrollmentToken)
        .where(
            EnrollmentToken.token_id == token_id, EnrollmentToken.used_at.is_(None), EnrollmentToken.expires_at > now
        )
        .values(used_at=now, used_nkey=nkey, used_key_sha256=key_sha256)
    )
    return bool(done.rowcount)  # type: ignore[attr-defined]


async def has_other_server_key(session: AsyncSession, token_id: str, nkey: str) -> bool:
    """Whether another server than the token's has this nkey: revoking the one would cut off the other."""
    server_id = select(EnrollmentToken.server_id).where(EnrollmentToken.token_id == token_id).scalar_subquery()
    query = select(Certificate.nkey).where(Certificate.nkey == nkey, Certificate.server_id != server_id)
    return await session.scalar(query.limit(1)) is not None


async def list_live_certificates(session: AsyncSession, server_id: int, now: datetime) -> Sequence[Certificate]:
    """Identities of a server that would still be accepted."""
    query = select(Certificate).where(
        Certificate.server_id == server_id, Certificate.revoked_at.is_(None), Certificate.expires_at > now
    )
    return (await session.scalars(query)).all()


async def list_certificates(session: AsyncSession, server_id: int) -> Sequence[Certificate]:
    """Every identity a server ever had, newest first."""
    query = select(Certificate).where(Certificate.server_id == server_id).order_by(Certificate.id.desc())
    return (await session.scalars(query)).all()


async def list_reasons(session: AsyncSession, server_id: int) -> dict[str, str]:
    """Why keys of a server are revoked, by nkey."""
    rows = await session.execute(select(Revocation.nkey, Revocation.reason).where(Revocation.server_id == server_id))
    return dict(rows.all())


async def list_ends(session: AsyncSession) -> dict[str, datetime]:
    """When the last unrevoked identity of each server ends, by slug."""
    query = (
        select(Server.slug, func.max(Certificate.expires_at))
        .join(Certificate, Certificate.server_id == Server.id)
        .where(Certificate.revoked_at.is_(None))
        .group_by(Server.slug)
    )
    return dict((await session.execute(query)).all())


async def find_server_of(session: AsyncSession, nkey: str) -> Server | None:
    """The server that has this key."""
    query = select(Server).join(Certificate, Certificate.server_id == Server.id).where(Certificate.nkey == nkey)
    return await session.scalar(query.limit(1))


async def void_tokens(session: AsyncSession, server_id: int, now: datetime) -> None:
    """Ends the unused enrollment tokens of a server."""
    await session.execute(
        update(EnrollmentToken)
        .where(
            EnrollmentToken.server_id == server_id, EnrollmentToken.used_at.is_(None), EnrollmentToken.expires_at > now
        )
        .values(expires_at=now)
    )


async def count_identities(
    session: AsyncSession, server_ids: Collection[int], now: datetime
) -> dict[int, tuple[int, int, int]]:
    """How many live, revoked and expired identities each of these servers has; none: missing."""
    found: dict[int, tuple[int, int, int]] = {}
    revoked = case((Certificate.revoked_at.is_not(None), 1), else_=0)
    expired = case((and_(Certificate.revoked_at.is_(None), Certificate.expires_at <= now), 1), else_=0)
    for part in batches(sorted(server_ids)):
        rows = await session.execute(
            select(Certificate.server_id, func.count(), func.sum(revoked), func.sum(expired))
            .where(Certificate.server_id.in_(part))
            .group_by(Certificate.server_id)
        )
        found.update((row[0], (row[1] - int(row[2]) - int(row[3]), int(row[2]), int(row[3]))) for row in rows)
    return found


async def find_last_enrolled(session: AsyncSession, server_id: int) -> datetime | None:
    """When a machine last enrolled as this server."""
    query = select(func.max(EnrollmentToken.used_at)).where(EnrollmentToken.server_id == server_id)
    return await session.scalar(query)


async def list_revocations(session: AsyncSession, now: datetime) -> dict[str, int]:
    """Revoked nkeys whose tokens have not expired by themselves, with the Unix second up to which they are dead."""
    rows = await session.execute(
        select(Revocation.nkey, Revocation.revoked_at).where(
            or_(Revocation.expires_at.is_(None), Revocation.expires_at > now)
        )
    )
    return {nkey: int(revoked_at.timestamp()) + 1 for nkey, revoked_at in rows}


async def forget_the_old(session: AsyncSession, now: datetime, before: datetime) -> None:
    """Drops revocations whose tokens are dead anyway, and enrollment tokens long past."""
    await session.execute(delete(Revocation).where(Revocation.expires_at < now))
    await session.execute(delete(EnrollmentToken).where(EnrollmentToken.expires_at < before))
