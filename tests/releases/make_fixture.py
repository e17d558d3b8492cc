"""Makes `database.sql` and `statements.json` of a release; run it with that release's own code, once, and commit both.

    git worktree add /tmp/release <tag> && cd /tmp/release
    PYTHONPATH=$(printf '%s:' services/* libs/* migrations deploy/nats ui)tests python .../make_fixture.py DIRECTORY

`database.sql` is a dump of a small database; `statements.json` what the release then goes on to ask and write. The
database's key file is made at run time and thrown away: what is sealed in the dump can be opened by nobody.
"""

import asyncio
import json
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any

from sqlalchemy import event, select

from harness.controller import ADMIN, PASSWORD, REALITY, WEBSOCKET, add_server, make_context
from xfleet_controller.auth import service as auth
from xfleet_controller.clients import service as clients
from xfleet_controller.clients.models import Client
from xfleet_controller.clients.service import ClientEdit, ClientNew
from xfleet_controller.context import Context
from xfleet_controller.db import Database
from xfleet_controller.inbounds import service as inbounds
from xfleet_controller.inbounds.service import InboundEdit, InboundNew
from xfleet_controller.servers import service as servers
from xfleet_controller.servers.service import ServerEdit
from xfleet_controller.tasks import store as tasks
from xfleet_controller.traffic.models import ClientInboundTotal, ClientTotal, LedgerCursor


async def fill(context: Context) -> None:
    """Two servers, inbounds, clients, one deleted, and a ledger."""
    await auth.ensure_first_admin(context, PASSWORD)
    alpha, beta = await add_server(context, "alpha"), await add_server(context, "beta")
    first, _ = await inbounds.create_inbound(context, ADMIN, InboundNew(server_id=alpha.id, **REALITY))
    second, _ = await inbounds.create_inbound(context, ADMIN, InboundNew(server_id=beta.id, **WEBSOCKET))
    both = [first.row.id, second.row.id]
    for name in ("alice", "bob", "carol"):
        await clients.create_client(context, ADMIN, ClientNew(name=name, inbound_ids=both, total_bytes=10**10))
    gone, _ = await clients.create_client(context, ADMIN, ClientNew(name="gone", inbound_ids=both))
    await clients.delete_client(context, ADMIN, gone.row.id)
    now = context.clock.now()
    async with context.database.write() as session:
        for ref in (await session.scalars(select(Client.ref).order_by(Client.id))).all():
            moved = {"up_bytes": ref % 1000, "down_bytes": 2 * (ref % 1000)}
            session.add(ClientTotal(client_ref=ref, period_up_bytes=0, period_down_bytes=0, **moved))
            session.add(ClientInboundTotal(client_ref=ref, inbound_ref=first.row.ref, server_id=alpha.id, **moved))
        session.add(
            LedgerCursor(
                server_id=alpha.id, epoch="a" * 24, floor=7, digest="d" * 64, instance="i1", created_at=now,
                updated_at=now,
            )
        )  # fmt: skip


async def go_on(context: Context) -> None:
    """What the release does every day."""
    found, _ = await clients.list_clients(context, ADMIN, search="a")
    await clients.edit_client(context, ADMIN, found[0].row.id, ClientEdit(comment="later"))
    rows, _ = await inbounds.list_inbounds(context, ADMIN)
    await inbounds.edit_inbound(context, ADMIN, rows[0].row.id, InboundEdit(port=9443))
    await servers.edit_server(context, ADMIN, rows[0].row.server_id, ServerEdit(notes="later"))
    await clients.create_client(context, ADMIN, ClientNew(name="dave", inbound_ids=[rows[1].row.id]))
    await add_server(context, "gamma")
    async with context.database.read() as session:
        await tasks.list_tasks(session, server_id=None, status="", operation="", offset=0, limit=50)
    await servers.list_servers(context, ADMIN)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


async def make(directory: Path) -> None:
    """Both files."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "xfleet.db")
        database = Database(f"sqlite+aiosqlite:///{file}")
        await database.migrate()
        context = make_context(database, Path(name))
        await fill(context)
        with sqlite3.connect(file) as copy:
            copy.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            (directory / "database.sql").write_text("\n".join(copy.iterdump()) + "\n")
        copy.close()
        statements: list[list[Any]] = []

        @event.listens_for(database.engine.sync_engine, "before_cursor_execute")
        def _take(_connection: Any, _cursor: Any, text: str, given: Any, _context: Any, many: bool) -> None:
            statements.extend([text, [_plain(value) for value in each]] for each in (given if many else [given]))

        await go_on(context)
        await database.close()
        lines = ",\n".join(json.dumps(each) for each in statements if not each[0].startswith(("BEGIN", "PRAGMA")))
        (directory / "statements.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    asyncio.run(make(Path(sys.argv[1])))
