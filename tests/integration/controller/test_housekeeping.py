"""What is old goes, what is needed stays."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from harness.controller import ADMIN, WEBSOCKET, add_server, make_context
from xfleet_controller.app import keep_house
from xfleet_controller.auth import service as auth
from xfleet_controller.auth.models import Session
from xfleet_controller.db import Database
from xfleet_controller.fleet.models import Revocation
from xfleet_controller.inbounds import service as inbounds
from xfleet_controller.inbounds.service import InboundNew
from xfleet_controller.servers.difference import make_order
from xfleet_controller.servers.models import ServerRevision, StateChunk
from xfleet_controller.tasks.models import ServerTask
from xfleet_runtime.clock import FakeClock

pytestmark = pytest.mark.postgres


async def test_old_sessions_chunks_tasks_and_revocations_go(database: Database, tmp_path: Path) -> None:
    clock = FakeClock(datetime(2026, 6, 1, tzinfo=UTC))
    context = make_context(database, tmp_path, clock=clock)
    server = await add_server(context)
    await inbounds.create_inbound(context, ADMIN, InboundNew(server_id=server.id, **WEBSOCKET))
    await auth.ensure_first_admin(context, "long enough")
    await auth.sign_in(context, "admin", "long enough", address="192.0.2.1")
    async with database.write() as session:
        row = await session.get_one(ServerRevision, server.id)
        await make_order(session, context.vault, row, None, clock.now())
        (await session.scalars(select(ServerTask).order_by(ServerTask.id))).first().status = "completed"  # type: ignore[union-attr]
        (await session.scalars(select(ServerTask).order_by(ServerTask.id))).first().completed_at = clock.now()  # type: ignore[union-attr]
        for nkey, days in (("UOLD", 10), ("UNEW", 300)):
            expires_at = clock.now() + timedelta(days=days)
            session.add(Revocation(nkey=nkey, revoked_at=clock.now(), expires_at=expires_at))
        overdue = ServerTask(
            server_id=server.id, operation="xray.restart", created_at=clock.now(), deadline_at=clock.now(), request={}
        )
        session.add(overdue)
    clock.advance(91 * 86400)
    await keep_house(context)
    async with database.read() as session:
        for table, left in ((Session, 0), (StateChunk, 0), (Revocation, 1)):
            assert await session.scalar(select(func.count()).select_from(table)) == left
        statuses = (await session.scalars(select(ServerTask.status).order_by(ServerTask.id))).all()
    assert statuses == ["pending", "expired"]
