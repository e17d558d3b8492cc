"""Whoever has the machine but not the password gets in again."""

from pathlib import Path

import pytest
from sqlalchemy import func, select

from harness.controller import PASSWORD, make_context, open_api, signed_in
from xfleet_controller.audit.models import AuditRow
from xfleet_controller.auth import service as auth
from xfleet_controller.auth.models import Admin, LoginThrottle, RecoveryCode, Session
from xfleet_controller.auth.passwords import Passwords
from xfleet_controller.config import ControllerSettings
from xfleet_controller.context import Context
from xfleet_controller.db import Database
from xfleet_controller.rescue import service
from xfleet_runtime.clock import SystemClock
from xfleet_runtime.errors import Unusable

pytestmark = pytest.mark.postgres
CHEAP = Passwords(cheap=True)


async def reset(context: Context, name: str = "admin", password: str = "", *, remove_totp: bool = False) -> str:
    return await service.reset_password(context.database, CHEAP, context.clock, name, password, remove_totp=remove_totp)


async def test_a_new_password_works_the_old_one_and_all_sessions_do_not(context: Context) -> None:
    async with signed_in(context) as api:
        made = await reset(context, "ADMIN")
        assert (await api.get("/api/v1/session")).status_code == 401
    with pytest.raises(auth.WrongPassword):
        await auth.sign_in(context, "admin", PASSWORD, address="192.0.2.1")
    assert await auth.sign_in(context, "admin", made, address="192.0.2.1")
    async with context.database.read() as session:
        row = await session.scalar(select(AuditRow).where(AuditRow.action == "reset_password"))
        assert row is not None
        assert row.actor == "system"
        assert made not in str(row.after)


async def test_codes_delays_and_being_disabled_do_not_stand_in_the_way(context: Context) -> None:
    await auth.ensure_first_admin(context, PASSWORD)
    now = context.clock.now()
    async with context.database.write() as session:
        admin = (await session.scalars(select(Admin))).one()
        admin.totp_sealed, admin.totp_confirmed_at, admin.enabled = b"x", now, False
        session.add(RecoveryCode(admin_id=admin.id, code_sha256="0" * 64, created_at=now))
        for key in ("account:admin", "account:admin@192.0.2.1", "account:administrator"):
            session.add(LoginThrottle(key=key, failures_count=20, blocked_until_at=now, updated_at=now))
    await reset(context)
    assert await service.has_totp(context.database, "admin")
    await reset(context, password="a better password", remove_totp=True)
    assert not await service.has_totp(context.database, "admin")
    async with context.database.read() as session:
        keys = (await session.scalars(select(LoginThrottle.key))).all()
        codes = await session.scalar(select(func.count()).select_from(RecoveryCode))
        admin = (await session.scalars(select(Admin))).one()
    assert (keys, codes, admin.enabled, admin.totp_sealed) == (["account:administrator"], 0, True, None)
    async with open_api(context) as api:
        answer = await api.post("/api/v1/session", json={"username": "admin", "password": "a better password"})
        assert answer.status_code == 201


async def test_an_admin_is_made_once_and_listed(context: Context) -> None:
    made = await service.create_admin(context.database, CHEAP, context.clock, "bob", "support", "")
    assert len(made) == service.MADE_UP_LENGTH
    assert [(each.name, each.role) for each in await service.list_admins(context.database)] == [("bob", "support")]
    for name, role, password, says in (
        ("Bob", "owner", "", "already"),
        ("b b", "owner", "", "cannot be a name"),
        ("eve", "king", "", "no role"),
        ("eve", "owner", "short", "at least"),
    ):
        with pytest.raises(Unusable, match=says):
            await service.create_admin(context.database, CHEAP, context.clock, name, role, password)
    with pytest.raises(Unusable, match="Admins: bob"):
        await reset(context, "nobody")
    async with context.database.read() as session:
        assert await session.scalar(select(func.count()).select_from(Session)) == 0


async def test_looking_makes_nothing(tmp_path: Path) -> None:
    settings = ControllerSettings(data_dir=tmp_path / "none")
    with pytest.raises(Unusable, match="There is no fleet in"):
        async with service.opened(settings):
            pass
    assert not (tmp_path / "none").exists()


async def test_an_older_database_is_not_touched(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'xfleet.db'}")
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql("CREATE TABLE alembic_version (version_num TEXT)")
        await connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('ffff_of_tomorrow')")
    await database.close()
    assert make_context(database, tmp_path, clock=SystemClock())
    with pytest.raises(Unusable, match="newer release"):
        async with service.opened(ControllerSettings(data_dir=tmp_path)):
            pass
