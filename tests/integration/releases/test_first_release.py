"""What release 0.1.0 left behind: its database migrates and serves it on; its agents serve a new controller."""

import asyncio
import base64
import json
import os
import sqlite3
import sys
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from harness.agent import find_xrays
from harness.broker import eventually
from harness.controller import WEBSOCKET
from harness.controller_fleet import World, api_of, running_world
from harness.xray import Sink, XrayClient, free_port, transfer
from xfleet_contracts import codec
from xfleet_contracts.care import STATE_READ, StateHeld, StateRead
from xfleet_contracts.errors import RemoteRefusal
from xfleet_controller.clients.models import Client
from xfleet_controller.db import Database
from xfleet_controller.servers.models import Server
from xfleet_controller.tasks.models import ServerTask
from xfleet_migrations import runner
from xfleet_xraykit.process import stop

RELEASE = Path(__file__).parents[2] / "releases" / "0.1.0"


def counts(file: Path) -> dict[str, int]:
    """How many rows each table has."""
    with closing(sqlite3.connect(file)) as db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: db.execute(f'SELECT COUNT(*) FROM "{name}"').fetchone()[0] for name in tables}


async def test_a_database_of_the_release_migrates_with_every_row(tmp_path: Path) -> None:
    file = tmp_path / "xfleet.db"
    with closing(sqlite3.connect(file)) as db:
        db.executescript((RELEASE / "database.sql").read_text())
    before = counts(file)
    database = Database(f"sqlite+aiosqlite:///{file}")
    try:
        await database.migrate()
        after = counts(file)
        assert before["clients"] == 3
        assert {name: after[name] for name in before} == before
        async with database.read() as session:
            assert [each.name for each in await session.scalars(select(Server).order_by(Server.id))] == [
                "alpha",
                "beta",
            ]
            assert {each.name for each in await session.scalars(select(Client))} == {"alice", "bob", "carol"}
            assert (await session.scalars(select(ServerTask))).all()
        copy = file.with_name(f"{file.name}.before-{runner.newest_revision()}")
        assert counts(copy) == before
        await database.migrate()
    finally:
        await database.close()


async def test_the_release_goes_on_with_the_migrated_database(tmp_path: Path) -> None:
    """Every statement it made in a day's work, in their order."""
    file = tmp_path / "xfleet.db"
    with closing(sqlite3.connect(file)) as db:
        db.executescript((RELEASE / "database.sql").read_text())
    database = Database(f"sqlite+aiosqlite:///{file}")
    await database.migrate()
    await database.close()
    statements = json.loads((RELEASE / "statements.json").read_text())
    with closing(sqlite3.connect(file)) as db:
        for text, given in statements:
            db.execute(
                text, [bytes.fromhex(each["hex"]) if isinstance(each, dict) else each for each in given]
            ).fetchall()
        assert db.execute("SELECT COUNT(*) FROM clients WHERE name = 'dave'").fetchone()[0] == 1
        assert db.execute("SELECT COUNT(*) FROM servers WHERE name = 'gamma' AND version = 1").fetchone()[0] == 1
    assert len(statements) > 50


@asynccontextmanager
async def old_agent(world: World, state_dir: Path) -> AsyncIterator[None]:
    """The release's agent, enrolled by the new controller's token."""
    token = base64.urlsafe_b64encode(codec.canonical(world.token())).decode().rstrip("=")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XFLEET_")}
    environment |= {
        "PYTHONPATH": str(state_dir.parent / "release"),
        "XFLEET_METER_INTERVAL_S": "0.3",
        "XFLEET_HEARTBEAT_INTERVAL_S": "0.5",
    }
    with zipfile.ZipFile(RELEASE / "agent.zip") as packed:
        packed.extractall(state_dir.parent / "release")
    log_file = state_dir.parent / "agent.log"
    token_file = state_dir.parent / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(token)
    with log_file.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "xfleet_agent.main", "run", "--state-dir", str(state_dir),
            "--token-file", str(token_file), env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield
    finally:
        process.kill()
        await process.wait()
        for xray in find_xrays(state_dir):
            await stop(xray)
        sys.stderr.write(log_file.read_text())


@pytest.mark.real_broker
async def test_an_agent_of_the_release_enrolls_applies_and_reports_traffic_to_this_controller(tmp_path: Path) -> None:
    async with (
        running_world(tmp_path / "data", broker_port=free_port()) as world,
        api_of(world) as api,
        old_agent(world, tmp_path / "agent"),
        Sink() as sink,
    ):
        await eventually(lambda: world.controller.context.presence.is_online("local"), within_s=30)
        await api.patch(
            "/api/v1/servers/1",
            params={"wait": 10},
            json={"allow_private_destinations": True, "public_address": "127.0.0.1"},
        )
        body = {**WEBSOCKET, "port": free_port(), "server_id": 1}
        inbound = (await api.post("/api/v1/inbounds", params={"wait": 20}, json=body, timeout=40)).json()
        assert [task["status"] for task in inbound["tasks"]] == ["completed"]
        made: dict[str, Any] = (
            await api.post(
                "/api/v1/clients", params={"wait": 20}, json={"name": "old", "inbound_ids": [inbound["id"]]}, timeout=40
            )
        ).json()
        assert [task["status"] for task in made["tasks"]] == ["completed"]
        async with XrayClient.from_link(made["links"][0]) as app:
            sent, got = await transfer(app, sink, 50_000, 100_000)

        async def counted() -> bool:
            usage = (await api.get(f"/api/v1/clients/{made['id']}")).json()
            return (usage["up_bytes"], usage["down_bytes"]) == (sent, got)

        await eventually(counted, within_s=30)
        with pytest.raises(RemoteRefusal) as refused:  # it really is the old one
            await world.controller.commander.request("local", STATE_READ, StateRead(), StateHeld)
        assert refused.value.remote_code == "unknown_verb"
