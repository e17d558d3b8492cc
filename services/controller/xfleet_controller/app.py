"""The one place that constructs: from settings to a running controller."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from xfleet_contracts import subjects
from xfleet_controller.auth import service as auth
from xfleet_controller.auth.passwords import Passwords
from xfleet_controller.backups.jobs import keep_schedule
from xfleet_controller.bus import Bus, Commander, open_bus
from xfleet_controller.clients import service as clients
from xfleet_controller.config import ControllerSettings
from xfleet_controller.context import Context
from xfleet_controller.control.desk import ControlDesk
from xfleet_controller.db import Database
from xfleet_controller.fleet import service as fleet_service
from xfleet_controller.fleet import store as fleet_store
from xfleet_controller.fleet.certificates import watch_expiry
from xfleet_controller.fleet.inbox import Desks
from xfleet_controller.fleet.keyring import load_keys, open_vault
from xfleet_controller.fleet.manifest import ManifestTeller, ensure_manifest, panel_urls, with_public
from xfleet_controller.fleet.own import OwnCredentials, link_credentials
from xfleet_controller.fleet.service import Fleet
from xfleet_controller.fleet.watch import LOOK_EVERY_S, Watch
from xfleet_controller.ledger_wiring import Ledger, open_ledger
from xfleet_controller.logs.hub import LogHub
from xfleet_controller.orders.blobs import METHOD as BLOB
from xfleet_controller.orders.blobs import Transfers
from xfleet_controller.orders.runner import OrderRunner
from xfleet_controller.outbox import Outbox
from xfleet_controller.rollouts.runner import RolloutRunner
from xfleet_controller.servers import jobs as server_jobs
from xfleet_controller.servers import service as servers
from xfleet_controller.servers.agent_events import AgentEvents
from xfleet_controller.servers.dispatcher import Dispatcher
from xfleet_controller.servers.presence import Presence
from xfleet_controller.servers.versions import ensure_first_versions
from xfleet_controller.tasks import store as tasks
from xfleet_controller.upkeep import disk
from xfleet_controller.upkeep import service as upkeep
from xfleet_controller.upkeep.retention import Retention
from xfleet_controller.vault import Vault
from xfleet_nats.fleet import FleetIssuer, FleetKeys
from xfleet_nats.jetstream import ensure_streams
from xfleet_nats.system import NodeWatch
from xfleet_runtime.broker import BrokerLink, Disconnected
from xfleet_runtime.clock import Clock, SystemClock
from xfleet_runtime.errors import Unusable
from xfleet_runtime.log import get_logger
from xfleet_runtime.supervise import every, supervise

_log = get_logger(__name__)
BROKER_URLS = "broker_urls"
CREDENTIALS_EVERY_S = 60.0
EXPIRY_EVERY_S = 2.0
HOUSEKEEPING_EVERY_S = 600.0
CERTIFICATES_EVERY_S = 600.0
FIRST_CONNECTION_S = 10.0
TOKENS_KEPT = timedelta(days=30)


@dataclass(kw_only=True)
class Controller:
    """A running controller, for the web app and tests."""

    context: Context
    bus: Bus
    commander: Commander
    dispatcher: Dispatcher
    desks: Desks
    ledger: Ledger
    own: OwnCredentials


def make_context(settings: ControllerSettings, database: Database, vault: Vault, clock: Clock) -> Context:
    """The parts that need no broker."""
    return Context(
        settings=settings,
        clock=clock,
        database=database,
        vault=vault,
        passwords=Passwords(),
        presence=Presence(clock, heartbeat_interval_s=settings.heartbeat_interval_s),
    )


@asynccontextmanager
async def open_controller(settings: ControllerSettings, *, clock: Clock | None = None) -> AsyncIterator[Controller]:
    """Opens database, keys and bus, starts all loops, and ends them in order. Raises `Unusable`."""
    clock = clock or SystemClock()
    database = Database(settings.database)
    try:
        await database.migrate()
        vault = await open_vault(database, settings.key_file)
        keys = await load_keys(database, vault)
        if keys is None:
            raise Unusable(f"There is no fleet in {settings.data_dir}. Run: xfleet-controller init")
        context = make_context(settings, database, vault, clock)
        broker_urls = await _broker_urls(settings, database)
        agents_urls = await _agents_urls(database, broker_urls)
        manifest = await ensure_manifest(
            database, keys, settings.root_file, clock, broker_urls=agents_urls, panel_urls=panel_urls(settings)
        )
        issuer = FleetIssuer(keys, clock)
        context.fleet = Fleet(issuer, manifest, agents_urls, vault, clock)
        async with open_bus(link_credentials(issuer, broker_urls)) as bus:
            await _first_connection(bus, broker_urls)
            context.bus = bus
            async with _running(context, bus, keys, broker_urls) as controller:
                yield controller
    finally:
        await database.close()


@asynccontextmanager
async def _running(
    context: Context, bus: Bus, keys: FleetKeys, broker_urls: tuple[str, ...]
) -> AsyncIterator[Controller]:
    commander = Commander(bus.commands, keys.command_key(), context.presence, context.clock)
    context.commander = commander
    dispatcher = Dispatcher(context, commander)
    outbox = Outbox(context.database, context.clock, bus.commands, dispatcher.wake)
    fleet = context.fleet
    if fleet is None:
        raise RuntimeError("a controller without a fleet")
    revoked = asyncio.Event()
    desks = Desks(context, fleet, bus.rpc, keys.command_key(), revoked.set)
    context.transfers = Transfers(context.settings.data_dir / "transfers", bus.rpc)
    desks.add(BLOB, context.transfers.answer)
    context.log_hub = LogHub(bus.logs, commander, context.clock)
    await servers.refresh_known(context)
    await ensure_first_versions(context)
    ledger = open_ledger(context, bus, commander, desks)
    await _at_connections(bus.commands, lambda: _ensure_streams(bus))
    await _at_connections(bus.heartbeats, lambda: _listening(context))
    watch = NodeWatch(bus.sys, lambda _node: fleet_service.push_revocations(context))
    await bus.heartbeats.subscribe(subjects.ALL_HEARTBEATS, context.presence.on_heartbeat)
    await watch.start()
    await desks.start()
    await ControlDesk(context, bus.svc).start()
    teller = ManifestTeller(commander, fleet)
    context.presence.on_beat.append(teller.on_beat)
    watched = Watch(context)
    own = OwnCredentials(context, bus, fleet.issuer, broker_urls)
    watch_disk = disk.DiskWatch(context)
    loops = {
        "outbox": outbox.run,
        "dispatcher": dispatcher.run,
        "orders": OrderRunner(context).run,
        "live logs": context.log_hub.run,
        "rollouts": RolloutRunner(context).run,
        "presence": lambda: every(server_jobs.FLUSH_S, lambda: _look_around(context, bus)),
        "expiry": lambda: every(EXPIRY_EVERY_S, lambda: clients.cut_overdue(context)),
        "housekeeping": lambda: every(HOUSEKEEPING_EVERY_S, lambda: _keep_house(context, ledger), first_s=60),
        "disk": lambda: every(disk.LOOK_EVERY_S, watch_disk.look, first_s=1),
        "revocations": lambda: _push_when(context, revoked),
        "certificates": lambda: every(CERTIFICATES_EVERY_S, lambda: watch_expiry(context), first_s=0),
        "connections": lambda: every(LOOK_EVERY_S, watched.look),
        "credentials": lambda: every(CREDENTIALS_EVERY_S, own.look),
        "manifest": teller.run,
        "backups": lambda: keep_schedule(context),
        "agent events": AgentEvents(context, bus.commands).run,
        **ledger.loops,
    }
    running = [asyncio.ensure_future(supervise(name, loop)) for name, loop in loops.items()]
    try:
        yield Controller(
            context=context, bus=bus, commander=commander, dispatcher=dispatcher, desks=desks, ledger=ledger, own=own
        )
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _broker_urls(settings: ControllerSettings, database: Database) -> tuple[str, ...]:
    if settings.broker_url:
        return tuple(url.strip() for url in settings.broker_url.split(",") if url.strip())
    async with database.read() as session:
        stored = await fleet_store.find_setting(session, BROKER_URLS)
    if not stored:
        raise Unusable("The broker's address is unknown. Give --broker-url tls://HOST:PORT, or run init again.")
    return tuple(stored)


async def _agents_urls(database: Database, own: tuple[str, ...]) -> tuple[str, ...]:
    """The addresses agents get: what `init` wrote down, else our own."""
    async with database.read() as session:
        return await with_public(session, tuple(await fleet_store.find_setting(session, BROKER_URLS) or own))


async def _first_connection(bus: Bus, urls: tuple[str, ...]) -> None:
    """Waits for the broker once; later outages are lived through. Raises `Unusable`."""
    try:
        await bus.commands.wait_connected(FIRST_CONNECTION_S)
    except Disconnected as outage:
        raise Unusable(
            f"The broker at {', '.join(urls)} cannot be reached: {outage}. Start it, or give --broker-url."
        ) from outage


async def _at_connections(link: BrokerLink, callback: Callable[[], Awaitable[None]]) -> None:
    """Calls back for the present connection, if there is one, and for all later ones."""
    link.on_connected(callback)
    if link.connected:
        await callback()


async def _ensure_streams(bus: Bus) -> None:
    created = await ensure_streams(bus.commands.js)
    _log.info("streams stand", streams=sorted(created))


async def _listening(context: Context) -> None:
    context.presence.now_listening()


async def _look_around(context: Context, bus: Bus) -> None:
    if not bus.heartbeats.connected:
        context.presence.now_deaf()
    await server_jobs.flush_presence(context)


async def _keep_house(context: Context, ledger: Ledger) -> None:
    kept = await keep_house(context)
    ledger.rollup.keep_minutes(kept.traffic_minutes_hours)


async def keep_house(context: Context) -> Retention:
    """Drops what is old: sessions, throttles, chunks, points, tasks, tokens, revocations that expired by themselves."""
    now = context.clock.now()
    await auth.forget_the_old(context)
    await server_jobs.forget_the_old(context)
    async with context.database.write() as session:
        await tasks.expire_overdue(session, now)
        await fleet_store.forget_the_old(session, now, now - TOKENS_KEPT)
    return await upkeep.forget_the_old(context)


async def _push_when(context: Context, revoked: asyncio.Event) -> None:
    while True:
        await revoked.wait()
        revoked.clear()
        await fleet_service.push_revocations(context)


__all__ = ["Controller", "make_context", "open_controller"]
