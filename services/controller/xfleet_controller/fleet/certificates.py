"""Which identities a server has, when they end, and warnings before they do."""

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.auth.rights import Actor, authorize
from xfleet_controller.context import Context
from xfleet_controller.errors import NotFound
from xfleet_controller.fleet import store
from xfleet_controller.outbox import note_event
from xfleet_controller.servers.models import Server
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
WARN_BEFORE = (timedelta(days=30), timedelta(days=7), timedelta(days=1), timedelta(0))
"""How long before a server's last identity ends that is told, and once more when it has."""
WARNED_SETTING = "certificate_warnings"
GOOD, EXPIRED, REVOKED = "good", "expired", "revoked"


class Identity(NamedTuple):
    """One identity a server has or had."""

    id: int
    nkey: str
    serial_number: str
    source: str
    issued_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    status: str
    """good, expired or revoked."""
    reason: str
    """Why it was revoked."""


async def list_identities(context: Context, actor: Actor, server_id: int) -> list[Identity]:
    """Every identity a server has or had, newest first. Raises `NotFound`."""
    authorize(actor, "servers.read")
    now = context.clock.now()
    async with context.database.read() as session:
        if await session.get(Server, server_id) is None:
            raise NotFound("There is no such server.")
        rows = await store.list_certificates(session, server_id)
        reasons = await store.list_reasons(session, server_id)
    return [
        Identity(
            id=row.id,
            nkey=row.nkey,
            serial_number=row.serial_number,
            source=row.source,
            issued_at=row.issued_at,
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
            status=REVOKED if row.revoked_at else GOOD if row.expires_at > now else EXPIRED,
            reason=reasons.get(row.nkey, "") if row.revoked_at else "",
        )
        for row in rows
    ]


async def watch_expiry(context: Context) -> None:
    """Tells once for each step of `WARN_BEFORE` that a server's newest identity comes to its end."""
    now = context.clock.now()
    async with context.database.write() as session:
        ends = await store.list_ends(session)
        told: dict[str, int] = await store.find_setting(session, WARNED_SETTING) or {}
        still: dict[str, int] = {}
        for slug, expires_at in ends.items():
            steps = sum(expires_at - now <= step for step in WARN_BEFORE)
            if steps:
                still[slug] = steps
                if steps > told.get(slug, 0):
                    _warn(session, slug, expires_at, now)
        if still != told:
            await store.set_setting(session, WARNED_SETTING, still, now)
    context.certificate_ends = ends


def _warn(session: AsyncSession, slug: str, expires_at: datetime, now: datetime) -> None:
    kind = "certificate_expired" if expires_at <= now else "certificate_expiring"
    note_event(session, kind, now, server=slug, subject=slug, details={"expires_at": expires_at.isoformat()})
    _log.warning(kind.replace("_", " "), sid=slug, expires_at=expires_at.isoformat())


__all__ = ["EXPIRED", "GOOD", "REVOKED", "Identity", "list_identities", "watch_expiry"]
