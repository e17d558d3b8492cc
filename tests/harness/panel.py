"""A real panel on a loopback port over a throw-away database; servers are played by heartbeats, bytes by the ledger."""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import uvicorn
from sqlalchemy import select

from xfleet_contracts.heartbeat import Heartbeat, HostFigures, XrayState
from xfleet_controller.app import make_context
from xfleet_controller.auth import service as auth
from xfleet_controller.auth.rights import SYSTEM
from xfleet_controller.clients.models import Client
from xfleet_controller.config import ControllerSettings
from xfleet_controller.context import Context
from xfleet_controller.db import Database
from xfleet_controller.fleet.keyring import open_vault
from xfleet_controller.pages import panel_pages
from xfleet_controller.servers.models import Server, ServerRevision
from xfleet_controller.servers.service import ServerNew, add_server
from xfleet_controller.traffic.models import ClientTotal
from xfleet_controller.web_app import create_web_app
from xfleet_runtime.clock import SystemClock

ADMIN, PASSWORD = "admin", "correct horse battery"
GB = 1024**3
T = TypeVar("T")


class PanelWorld:
    """The panel with hands on what it shows; every method may be called from the test's thread."""

    def __init__(self, context: Context, loop: asyncio.AbstractEventLoop, base_url: str) -> None:
        self.context = context
        self.base_url = base_url
        self._loop = loop
        self._seq = 0
        self.stop = asyncio.Event()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine run where the panel runs."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def call(self, work: Callable[[], T]) -> T:
        """The result of a plain function called where the panel runs."""

        async def inside() -> T:
            return work()

        return self.run(inside())

    def add_server(self, name: str, slug: str = "") -> int:
        """A server that has not been heard yet."""

        async def add() -> int:
            async with self.context.database.write() as session:
                server = await add_server(session, self.context, SYSTEM, ServerNew(name=name, slug=slug))
                server.public_address = "vpn.example.com"
                return server.id

        return self.run(add())

    def beat(self, slug: str, *, online: tuple[int, ...] = (), cpu_percent: float = 12.0) -> None:
        """A heartbeat of that server that says it runs what is wanted."""

        async def revision() -> int:
            async with self.context.database.write() as session:
                row = await session.scalar(
                    select(ServerRevision)
                    .join(Server, Server.id == ServerRevision.server_id)
                    .where(Server.slug == slug)
                )
                assert row is not None
                row.wanted_revision = row.applied_revision = row.desired_revision
                return row.desired_revision

        applied = self.run(revision())
        self._seq += 1
        host = HostFigures(
            cpu_percent=cpu_percent,
            cpu_count=2,
            load_1m=0.4,
            memory_total_bytes=4 * GB,
            memory_used_bytes=GB,
            disk_total_bytes=40 * GB,
            disk_used_bytes=11 * GB,
            network_up_bytes_s=125_000,
            network_down_bytes_s=1_250_000,
            uptime_s=90_000,
            os="Debian 12",
            arch="x86_64",
        )
        beat = Heartbeat(
            instance="one",
            seq=self._seq,
            sent_at_ms=self.context.clock.now_ms(),
            agent_version="0.1.0",
            applied_revision=applied,
            xray=XrayState(status="running", version="26.2.6", uptime_s=3600),
            host=host,
            online_count=len(online),
            online=online,
        )
        self.call(lambda: self.context.presence.take(slug, beat))

    def count(self, client_name: str, up_bytes: int, down_bytes: int) -> None:
        """The ledger counts bytes of a client, and says so as it does after a commit."""

        async def add() -> None:
            async with self.context.database.write() as session:
                ref = await session.scalar(select(Client.ref).where(Client.name == client_name))
                row = await session.get(ClientTotal, ref)
                if row is None:
                    row = ClientTotal(client_ref=ref, up_bytes=0, down_bytes=0, period_up_bytes=0, period_down_bytes=0)
                    session.add(row)
                row.up_bytes += up_bytes
                row.down_bytes += down_bytes
                row.period_up_bytes += up_bytes
                row.period_down_bytes += down_bytes
                row.last_online_at = self.context.clock.now()
            self.context.pulse.ring()

        self.run(add())


@contextmanager
def running_panel(
    data_dir: Path, *, base_path: str = "/x7k2", servers: tuple[str, ...] = ("local",)
) -> Iterator[PanelWorld]:
    """A panel with an admin and these servers, online."""
    listener = socket.create_server(("127.0.0.1", 0))
    settings = ControllerSettings(data_dir=data_dir, base_path=base_path, port=listener.getsockname()[1])
    opened: Future[PanelWorld] = Future()
    runner = Thread(target=lambda: asyncio.run(_serve(settings, listener, opened)))
    runner.start()
    try:
        world = opened.result(30)
        for name in servers:
            world.add_server(name, name)
            world.beat(name)
        try:
            yield world
        finally:
            world.call(world.stop.set)
    finally:
        runner.join(20)
        listener.close()


async def _serve(settings: ControllerSettings, listener: socket.socket, opened: "Future[PanelWorld]") -> None:
    """Serves until told to stop; the listening socket takes connections from the first moment."""
    database = Database(settings.database)
    try:
        await database.migrate()
        vault = await open_vault(database, settings.key_file)
        context = make_context(settings, database, vault, SystemClock())
        await auth.ensure_first_admin(context, PASSWORD)
        context.presence.now_listening()
        pages = panel_pages(context)
        app = create_web_app(context, pages=pages.handlers, html_error=pages.html_error)
        config = uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1, access_log=False)
        server = uvicorn.Server(config)
        world = PanelWorld(context, asyncio.get_running_loop(), f"http://127.0.0.1:{settings.port}{settings.prefix}")
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(sockets=[listener]))
            opened.set_result(world)
            await world.stop.wait()
            context.pulse.close()
            server.should_exit = True
    except BaseException as error:
        if not opened.done():
            opened.set_exception(error)
        raise
    finally:
        await database.close()
