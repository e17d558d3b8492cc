"""Credentials of command lines: a place on the bus, and an API token that says what may be asked there."""

import hashlib
import socket
from pathlib import Path

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.message import Secret
from xfleet_controller.audit.store import note
from xfleet_controller.auth.models import Admin, ApiToken
from xfleet_controller.auth.rights import OWNER, SYSTEM
from xfleet_controller.auth.service import TOKEN_PREFIX, hash_token
from xfleet_controller.db import Database
from xfleet_nats.fleet import FleetIssuer
from xfleet_runtime.broker import Credentials
from xfleet_runtime.clock import Clock
from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import write_private
from xfleet_runtime.ids import new_token

SCOPES = ["*"]
FILE_NAME = "cli-credentials.json"


class CliCredentials(msgspec.Struct, frozen=True, kw_only=True):
    """The file's content, in the form that the command line reads."""

    broker: Credentials
    looking: Credentials
    token: Secret
    admin: str


async def write_credentials(
    database: Database,
    issuer: FleetIssuer,
    urls: tuple[str, ...],
    path: Path,
    clock: Clock,
    *,
    admin_name: str = "",
) -> Path | None:
    """Writes fresh credentials of the bus; an API token in the file that still works stays.

    Without a name they are the first enabled owner's; None when there is no such admin. Raises `Unusable` for a name
    nobody has.
    """
    kept = _read(path)
    async with database.write() as session:
        admin = await _find_admin(session, admin_name)
        if admin is None:
            if admin_name:
                raise Unusable(f"There is no enabled admin {admin_name!r}. See: xfleet admin list")
            return None
        name = _slug(f"{admin.name}-{socket.gethostname()}")
        token = kept.token if kept is not None and await _still_works(session, kept, admin, clock) else ""
        if not token:
            token = f"{TOKEN_PREFIX}{new_token()}"
            row = ApiToken(
                admin_id=admin.id,
                name=f"command line on {socket.gethostname()}"[:100],
                token_sha256=hash_token(token),
                scopes=SCOPES,
                created_at=clock.now(),
            )
            session.add(row)
            await session.flush()
            note(session, SYSTEM, "create_token", "token", str(row.id), clock.now(), name=row.name)
    made = CliCredentials(
        broker=issuer.bus_credentials("cli", name, urls),
        looking=issuer.bus_credentials("ops-ro", name, urls),
        token=token,
        admin=admin.name,
    )
    write_private(path, msgspec.json.encode(made))
    return path


async def _find_admin(session: AsyncSession, name: str) -> Admin | None:
    query = select(Admin).where(Admin.enabled.is_(True)).order_by(Admin.id)
    return await session.scalar(
        query.where(Admin.name_key == name.lower()) if name else query.where(Admin.role == OWNER)
    )


async def _still_works(session: AsyncSession, kept: CliCredentials, admin: Admin, clock: Clock) -> bool:
    row = await session.scalar(select(ApiToken).where(ApiToken.token_sha256 == hash_token(kept.token)))
    if row is None or row.revoked_at is not None or row.admin_id != admin.id:
        return False
    return row.expires_at is None or row.expires_at > clock.now()


def _read(path: Path) -> CliCredentials | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=CliCredentials)
    except (OSError, msgspec.DecodeError):
        return None


def _slug(text: str) -> str:
    """A name the broker takes; different texts stay different."""
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in text.lower()).strip("-")
    return f"{plain[:50]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}".strip("-")
