"""Admins straight in the database: listed, made, and given a new password; root on the machine is the right to."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

import msgspec
from sqlalchemy import delete, or_, select

from xfleet_controller.audit.store import note
from xfleet_controller.auth import store
from xfleet_controller.auth.models import Admin, ApiToken, LoginThrottle, RecoveryCode
from xfleet_controller.auth.passwords import Passwords, password_errors
from xfleet_controller.auth.rights import ROLES, SYSTEM
from xfleet_controller.config import ControllerSettings
from xfleet_controller.db import Database, require_database
from xfleet_runtime.clock import Clock
from xfleet_runtime.errors import Unusable
from xfleet_runtime.ids import new_token

MADE_UP_LENGTH = 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class AdminLine(msgspec.Struct, frozen=True, kw_only=True):
    """One admin, for a terminal."""

    name: str
    role: str
    enabled: bool
    totp: bool
    last_login_at: datetime | None


@asynccontextmanager
async def opened(settings: ControllerSettings) -> AsyncIterator[Database]:
    """The database of an installation that was set up. Raises `Unusable`."""
    require_database(settings)
    database = Database(settings.database)
    try:
        await database.check_form(newest=True)
        yield database
    finally:
        await database.close()


async def list_admins(database: Database) -> list[AdminLine]:
    """All admins by name."""
    async with database.read() as session:
        rows: Sequence[Admin] = (await session.scalars(select(Admin).order_by(Admin.name_key))).all()
    return [
        AdminLine(
            name=row.name,
            role=row.role,
            enabled=row.enabled,
            totp=row.totp_confirmed_at is not None,
            last_login_at=row.last_login_at,
        )
        for row in rows
    ]


async def create_admin(
    database: Database, passwords: Passwords, clock: Clock, name: str, role: str, password: str
) -> str:
    """Makes an admin; the password, made up where none was given. Raises `Unusable`."""
    if not _NAME.fullmatch(name):
        raise Unusable(f"{name!r} cannot be a name: up to 64 letters, digits and . _ @ - are.")
    if role not in ROLES:
        raise Unusable(f"There is no role {role!r}. Roles: {', '.join(ROLES)}.")
    password, now = _checked(password), clock.now()
    password_hash = await passwords.hash(password)
    async with database.write() as session:
        if await store.find_admin(session, name) is not None:
            raise Unusable(f"There is an admin {name} already. Try: xfleet admin reset-password {name}")
        admin = Admin(
            name=name,
            name_key=name.lower(),
            password_hash=password_hash,
            role=role,
            created_at=now,
            password_changed_at=now,
        )
        session.add(admin)
        await session.flush()
        note(session, SYSTEM, "create_admin", "admin", str(admin.id), now, name=name, after={"role": role})
    return password


async def reset_password(
    database: Database, passwords: Passwords, clock: Clock, name: str, password: str, *, remove_totp: bool
) -> str:
    """Gives an admin a new password, enables it and ends its sessions; the password. Raises `Unusable`.

    Delays after wrong tries are forgotten. With `remove_totp` no second factor is asked for any more; API tokens stay.
    """
    password, now = _checked(password), clock.now()
    password_hash = await passwords.hash(password)
    async with database.write() as session:
        found = await store.find_admin(session, name)
        if found is None:
            known = ", ".join((await session.scalars(select(Admin.name).order_by(Admin.name_key).limit(20))).all())
            raise Unusable(f"There is no admin {name!r}. Admins: {known or 'none; try xfleet admin create NAME'}.")
        admin = await session.get_one(Admin, found.id, with_for_update=True)
        admin.password_hash, admin.password_changed_at, admin.enabled = password_hash, now, True
        if remove_totp:
            admin.totp_sealed = admin.totp_last_counter = admin.totp_confirmed_at = None
            await session.execute(delete(RecoveryCode).where(RecoveryCode.admin_id == admin.id))
        await store.delete_sessions(session, admin_id=admin.id)
        key = f"account:{admin.name_key}"
        await session.execute(
            delete(LoginThrottle).where(or_(LoginThrottle.key == key, LoginThrottle.key.startswith(f"{key}@")))
        )
        after = {"totp_removed": remove_totp}
        note(session, SYSTEM, "reset_password", "admin", str(admin.id), now, name=admin.name, after=after)
    return password


async def has_totp(database: Database, name: str) -> bool:
    """Whether this admin is asked for a code."""
    async with database.read() as session:
        admin = await store.find_admin(session, name)
    return admin is not None and admin.totp_confirmed_at is not None


async def count_tokens(database: Database, name: str) -> int:
    """API tokens of this admin that still work."""
    async with database.read() as session:
        query = select(ApiToken.id).join(Admin, Admin.id == ApiToken.admin_id)
        query = query.where(Admin.name_key == name.lower(), ApiToken.revoked_at.is_(None))
        return len((await session.scalars(query)).all())


def _checked(password: str) -> str:
    if not password:
        return new_token()[:MADE_UP_LENGTH]
    if errors := password_errors(password):
        raise Unusable(errors[0].reason)
    return password
