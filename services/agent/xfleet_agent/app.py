"""The agent as a whole: wires its parts, starts Xray before any network, and runs its loops until a signal."""

import asyncio
import hashlib
import os
import signal
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from xfleet_agent.apply import Applier
from xfleet_agent.calls import Calls
from xfleet_agent.commands import add_verbs
from xfleet_agent.courier import Courier
from xfleet_agent.database import Worker
from xfleet_agent.desk import Desk
from xfleet_agent.disk import DiskWatch
from xfleet_agent.events import Events
from xfleet_agent.fleet_clock import FleetClock
from xfleet_agent.governor import Governor
from xfleet_agent.heartbeat import Heart
from xfleet_agent.host import Host
from xfleet_agent.identity import Identity
from xfleet_agent.installer import Installer
from xfleet_agent.journal import Journal
from xfleet_agent.log_leases import LogLeases
from xfleet_agent.logs import LOG_DIRECTORY, LogFiles, listed_logs
from xfleet_agent.loops import Loops
from xfleet_agent.meter import Meter
from xfleet_agent.parts import Parts
from xfleet_agent.processes import Processes
from xfleet_agent.releases import Releases
from xfleet_agent.renewal import Renewal
from xfleet_agent.settings import AgentSettings
from xfleet_agent.setups import Setups
from xfleet_agent.spool import Spool
from xfleet_agent.state import StateStore
from xfleet_agent.xray import SOURCE, Decisions, XrayDriver, stored_setup
from xfleet_contracts import subjects
from xfleet_contracts.installs import BUNDLED
from xfleet_runtime.broker import BrokerLink, BrokerOutage, Incoming, parse_proxy
from xfleet_runtime.clock import SystemClock
from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import lock_exclusively
from xfleet_runtime.ids import new_id
from xfleet_runtime.log import get_logger
from xfleet_runtime.main import run_until_signal
from xfleet_runtime.supervise import supervise
from xfleet_xraykit.launcher import BinaryLauncher, Launcher, WheelLauncher

COMMAND_WORKERS = 16
"""More than all heavy verbs can hold at once, so that receipts and health never wait for an install."""
LAST_DELIVERY_S = 5.0
_log = get_logger(__name__)


def run_directory(state_dir: Path) -> Path:
    """Where sockets and locks live: never inside the state, which may be copied or restored while Xray runs."""
    name = hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:12]
    base = Path("/run") if os.geteuid() == 0 else Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    if str(base) != "." and os.access(base, os.W_OK):
        return base / f"xfleet-agent-{name}"
    return state_dir / "run"


async def run_agent(settings: AgentSettings, identity: Identity) -> None:
    """Runs the agent until SIGTERM (Xray goes on) or SIGINT (Xray is stopped in order)."""
    lock = lock_exclusively(settings.state_dir / "agent.lock", owner="An agent")
    worker = Worker()
    try:
        parts = _assembled(settings, identity, worker)
        try:
            got = await run_until_signal(lambda: _boot_and_serve(parts, settings))
            if got is signal.SIGINT:
                await _stop_in_order(parts)
        finally:
            await parts.link.close()
        await parts.worker.run(_last_words, parts)
        _log.info("agent stopped", xray_goes_on=got is not signal.SIGINT)
    finally:
        worker.close()
        os.close(lock)


def assemble(settings: AgentSettings, identity: Identity, worker: Worker) -> Parts:
    """Every part, connected; nothing runs yet."""
    system_clock = SystemClock()
    state_dir = settings.state_dir
    store = StateStore(state_dir / "state.db")
    clock = FleetClock(
        system_clock,
        offset_ms=int(store.fact("clock_offset_ms", "0")),
        last_seen_ms=int(store.fact("last_seen_ms", "0")),
        signed_ms=int(store.fact("signed_ms", "0")),
    )
    spool = Spool(state_dir / "spool.db", now_ms=clock.now_ms())
    events = Events(clock)
    for each in (store, spool):
        if each.damaged is not None:
            events.tell("database_replaced", aside=str(each.damaged))
    instance = new_id()
    meter = Meter(spool, worker, clock, events)
    setups = setups_of(settings)
    setups.clear_incoming()
    launcher = setups.launcher(stored_setup(store))
    if launcher is None:
        events.tell("xray_version_missing", source=stored_setup(store).source)
        store.save_facts(**{SOURCE: BUNDLED})
        launcher = bundled(settings, setups.geo_path(stored_setup(store)))
    processes = Processes(launcher, run_dir=run_directory(state_dir), log_dir=state_dir / LOG_DIRECTORY)
    driver = XrayDriver(processes, meter, store, worker, events, drain_s=settings.drain_s)
    applier = Applier(store, worker, driver, events, probation_s=settings.probation_s)
    governor = Governor(store, spool, worker, clock, events, applier)
    link = BrokerLink(identity.credentials(), name=f"agent {identity.sid}", proxy=parse_proxy(settings.broker_proxy))
    calls = Calls(link, identity.sid, identity.trusted)

    async def read_meter() -> None:
        await meter.read_all(driver.xrays())

    courier = Courier(
        sid=identity.sid, instance=instance, spool=spool, worker=worker, link=link, calls=calls, clock=clock,
        events=events, read_meter=read_meter, xrays=driver.xrays,
    )  # fmt: skip
    journal = Journal(store.db)
    desk = Desk(
        sid=identity.sid, instance=instance, clock=clock, journal=journal, worker=worker,
        trusted=identity.trusted,
    )  # fmt: skip
    logs = LogFiles(state_dir / LOG_DIRECTORY, listed_logs(settings.log_paths, state_dir))
    parts = Parts(
        settings=settings, identity=identity, instance=instance, system_clock=system_clock,
        started_s=system_clock.monotonic_s(),
        clock=clock, worker=worker, store=store, journal=journal, spool=spool, events=events,
        disk=DiskWatch(state_dir, events, low_bytes=settings.disk_low_bytes), host=Host(), meter=meter, driver=driver,
        applier=applier, governor=governor, link=link, calls=calls, courier=courier, desk=desk,
        releases=Releases(settings.install_dir),
        installer=Installer(setups, driver, applier, trial_s=settings.trial_s, proxy=settings.broker_proxy), logs=logs,
        leases=LogLeases(logs, clock, link, identity.sid),
    )  # fmt: skip
    _wire(parts)
    return parts


def _wire(parts: Parts) -> None:
    def on_started() -> None:
        parts.applier.wake.set()
        parts.beat.set()

    async def on_died() -> None:
        parts.beat.set()
        await parts.applier.on_died()

    async def on_connected() -> None:
        parts.releases.note_connected(parts.events)
        await parts.courier.on_connected()
        parts.beat.set()

    parts.driver.decisions = Decisions(
        boot_state=parts.applier.boot_state,
        restart_state=parts.applier.restart_state,
        adopted_shape=parts.applier.adopted_shape,
        on_started=on_started,
        on_died=on_died,
    )
    parts.link.on_connected(on_connected)
    add_verbs(parts)


def setups_of(settings: AgentSettings) -> Setups:
    """Programs and geo files of this agent; the bundled one is the wheel's, or what the operator named."""
    program = Path(settings.xray_binary) if settings.xray_binary else None
    return Setups(
        settings.state_dir, partial(bundled, settings), bundled_geo=program.resolve().parent if program else None
    )


def bundled(settings: AgentSettings, assets: Path | None) -> Launcher:
    """The Xray that this agent has without an order. Raises `Unusable` when the named one is not there."""
    if not settings.xray_binary:
        return WheelLauncher(assets=assets)
    path = Path(settings.xray_binary)
    if not os.access(path, os.X_OK):
        raise Unusable(f"There is no Xray program at {path}. Correct the setting xray_binary, or leave it empty.")
    return BinaryLauncher(path, assets=assets)


async def _boot_and_serve(parts: Parts, settings: AgentSettings) -> None:
    """Signals are heard from before the boot on: one that comes meanwhile must not leave an Xray without an owner."""
    await parts.driver.boot()
    parts.link.start()
    await _serve(parts, settings)


async def _serve(parts: Parts, settings: AgentSettings) -> None:
    async def on_command(message: Incoming) -> None:
        answer = await parts.desk.handle(message)
        if answer is not None:
            with suppress(BrokerOutage):
                await parts.link.respond(message, answer, within="_INBOX.c")

    await parts.link.subscribe(subjects.commands(parts.sid), on_command, workers=COMMAND_WORKERS)
    loops = Loops(parts, settings)
    renewal = Renewal(parts, every_s=settings.renew_every_s)
    heart = Heart(parts, parts.link, interval_s=settings.heartbeat_interval_s)
    named: dict[str, Callable[[], Awaitable[None]]] = {
        "meter": loops.meter,
        "courier": parts.courier.run,
        "governor": parts.governor.run,
        "converge": loops.converge,
        "drift": loops.drift,
        "probation": loops.probation,
        "events": loops.events,
        "disk": loops.disk,
        "housekeeping": loops.housekeeping,
        "logs": loops.logs,
        "log leases": parts.leases.run,
        "renewal": renewal.run,
        "return": renewal.come_back,
        "heartbeat": heart.run,
    }
    async with asyncio.TaskGroup() as group:
        group.create_task(supervise("xray", lambda: parts.driver.watch(group)))
        for name, loop in named.items():
            group.create_task(supervise(name, loop))


async def _stop_in_order(parts: Parts) -> None:
    """Stops Xray after its last byte, and gives the last batches a little time to be receipted."""
    await parts.driver.stop(by_order=False)
    parts.driver.processes.leave()
    await parts.courier.drain(timeout_s=LAST_DELIVERY_S)


def _last_words(parts: Parts) -> None:
    with suppress(sqlite3.Error):
        parts.store.save_facts(**parts.clock.facts())
    parts.store.close()
    parts.spool.close()


def _assembled(settings: AgentSettings, identity: Identity, worker: Worker) -> Parts:
    try:
        return assemble(settings, identity, worker)
    except sqlite3.Error as error:
        raise Unusable(
            f"The agent cannot use its databases in {settings.state_dir}: {error}. Is the disk full or read-only?"
        ) from error
