"""Secrets at rest: sealed where they are needed, nowhere else; and who did what is always written down."""

import logging
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from harness.controller import PASSWORD, REALITY, add_server, make_context
from harness.hostile import open_whole_panel
from xfleet_controller.audit.models import AuditRow
from xfleet_controller.context import Context
from xfleet_controller.db import Database
from xfleet_controller.servers.models import Server


async def played_through(api: httpx.AsyncClient, server: Server) -> tuple[list[str], list[str]]:
    """Every kind of change once; the secrets that came up, and the audit actions that should be there."""

    async def send(method: str, path: str, body: Any = None) -> Any:
        answer = await api.request(method, f"/api/v1{path}", json=body)
        assert answer.status_code < 300, (path, answer.text)
        return answer.json() if answer.content else None

    inbound = await send("POST", "/inbounds", {**REALITY, "server_id": server.id})
    client = await send("POST", "/clients", {"name": "alice", "inbound_ids": [inbound["id"]]})
    await send("PATCH", f"/inbounds/{inbound['id']}", {"remark": "x", "stream_settings": inbound["stream_settings"]})
    await send("PATCH", f"/clients/{client['id']}", {"comment": "x"})
    await send("PATCH", f"/servers/{server.id}", {"name": "renamed"})
    code = await send("POST", "/bot/codes")
    await send("POST", "/account/password", {"current_password": PASSWORD, "new_password": "another good one"})
    session = await api.post("/api/v1/session", json={"username": "admin", "password": "another good one"})
    rows = await send("GET", "/account/sessions")
    other = next(row["id"] for row in rows if not row["current"])
    await send("DELETE", f"/account/sessions/{other}")
    await send("DELETE", f"/clients/{client['id']}")
    await send("DELETE", f"/inbounds/{inbound['id']}")
    secrets = [
        inbound["stream_settings"]["realitySettings"]["privateKey"],
        client["links"][0].partition("://")[2].partition("@")[0],
        code["code"],
        PASSWORD,
        "another good one",
        session.json()["token"],
        api.headers["authorization"].removeprefix("Bearer "),
    ]
    actions = [
        "add_inbound", "add_client", "edit_inbound", "edit_client", "edit_server", "make_bot_code", "change_password",
        "sign_in", "revoke_session", "delete_client", "delete_inbound",
    ]  # fmt: skip
    return secrets, actions


@pytest.mark.postgres
async def test_every_change_is_written_down_without_a_secret(
    api: httpx.AsyncClient, server: Server, context: Context
) -> None:
    secrets, actions = await played_through(api, server)
    async with context.database.read() as session:
        rows = (await session.scalars(select(AuditRow))).all()
    assert set(actions) <= {row.action for row in rows}
    assert all(row.actor and row.at for row in rows)
    told = [str((row.before, row.after, row.object_id, row.object_name)) for row in rows]
    assert not [secret for secret in secrets if any(secret in text for text in told)]


async def test_no_secret_lies_in_the_file_of_the_database_or_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="httpx")  # the test's own client, which names what it asks for
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'xfleet.db'}")
    await database.migrate()
    context = make_context(database, tmp_path)
    server = await add_server(context)
    async with open_whole_panel(context) as api:
        secrets, _ = await played_through(api, server)
        subscription = (await api.post("/api/v1/clients", json={"name": "bob"})).json()["sub_id"]
        assert (await api.get(f"/sub/{subscription}")).status_code == 200
    await database.close()
    with sqlite3.connect(tmp_path / "xfleet.db") as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()
    found = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert not [secret for secret in secrets if secret.encode() in found]
    captured = capsys.readouterr()
    logged = captured.out + captured.err + caplog.text
    assert not [secret for secret in [*secrets, subscription] if secret in logged]
