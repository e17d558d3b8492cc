"""A controller for tests: its services and API on a real database, without a broker or with one."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from xfleet_contracts.heartbeat import Heartbeat, HostFigures, XrayState
from xfleet_controller.auth import service as auth
from xfleet_controller.auth.passwords import Passwords
from xfleet_controller.auth.rights import OWNER, SYSTEM, Actor
from xfleet_controller.config import ControllerSettings
from xfleet_controller.context import Context
from xfleet_controller.db import Database
from xfleet_controller.servers import service as servers
from xfleet_controller.servers.models import Server
from xfleet_controller.servers.presence import Presence
from xfleet_controller.vault import Vault
from xfleet_controller.web_app import create_web_app
from xfleet_runtime.clock import Clock, SystemClock
from xfleet_runtime.keys.sealed import KeyFile

PASSWORD = "correct horse battery"
ADMIN = Actor(name="admin", role=OWNER, admin_id=1)
REALITY = {
    "protocol": "vless",
    "port": 8443,
    "remark": "reality",
    "settings": {},
    "stream_settings": {
        "network": "raw",
        "security": "reality",
        "realitySettings": {"target": "example.com:443", "serverNames": ["example.com"]},
    },
}
WEBSOCKET = {
    "protocol": "vless",
    "port": 8080,
    "remark": "ws",
    "settings": {},
    "stream_settings": {"network": "ws", "security": "none", "wsSettings": {"path": "/ws"}},
}


def make_context(database: Database, data_dir: Path, *, clock: Clock | None = None, **settings: Any) -> Context:
    """The parts of a controller that need no broker, with cheap passwords and a vault of its own."""
    clock = clock or SystemClock()
    return Context(
        settings=ControllerSettings(data_dir=data_dir, database_url=database.url, **settings),
        clock=clock,
        database=database,
        vault=Vault(KeyFile(os.urandom(32))),
        passwords=Passwords(cheap=True),
        presence=Presence(clock),
    )


async def add_server(context: Context, name: str = "local", *, public_address: str | None = None) -> Server:
    """A server, waiting for its agent."""
    async with context.database.write() as session:
        known_as = "vpn.example.org" if name == "local" else f"{name.lower().replace(' ', '-')}.example.org"
        address = known_as if public_address is None else public_address
        new = servers.ServerNew(name=name, public_address=address)
        server = await servers.add_server(session, context, SYSTEM, new)
    await servers.refresh_known(context)
    return server


def open_api(context: Context, *, address: str = "127.0.0.1", **more: Any) -> httpx.AsyncClient:
    """A client of the whole web application, in this process."""
    transport = httpx.ASGITransport(create_web_app(context), client=(address, 40000), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=f"http://panel.test{context.settings.prefix}", **more)


@asynccontextmanager
async def signed_in(context: Context) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API with the first admin's bearer token."""
    await auth.ensure_first_admin(context, PASSWORD)
    async with open_api(context) as api:
        answer = await api.post("/api/v1/session", json={"username": "admin", "password": PASSWORD})
        assert answer.status_code == 201, answer.text
        api.headers["authorization"] = f"Bearer {answer.json()['token']}"
        yield api


def make_beat(seq: int = 1, *, instance: str = "i1", **more: Any) -> Heartbeat:
    """A heartbeat of a healthy agent."""
    fields: dict[str, Any] = {
        "agent_version": "0.1.0",
        "xray": XrayState(status="running", version="26.1.1", start_id="x1"),
        "host": HostFigures(
            cpu_percent=12.5, memory_total_bytes=100, memory_used_bytes=40, default_address="192.0.2.7"
        ),
    }
    return Heartbeat(instance=instance, seq=seq, sent_at_ms=0, **(fields | more))
