"""The driver of this server's Xray: adopts or starts it, notices its death, hands over to a new one, stops it in order.

Xray outlives its agent. It is started from what is on disk before any network is touched, restarted with growing
delays when it dies, and stopped only by an order.
"""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Literal

import msgspec

from xfleet_agent.database import Worker
from xfleet_agent.events import Events
from xfleet_agent.meter import Meter, age_s
from xfleet_agent.plan import Shape, config_digest, shape_of
from xfleet_agent.processes import Processes, RunningXray, describe_exit
from xfleet_agent.setups import Setup
from xfleet_agent.state import StateStore
from xfleet_agent.trials import Program, Trials, close_inbounds, noted
from xfleet_contracts.heartbeat import XrayState
from xfleet_contracts.installs import BUNDLED
from xfleet_runtime.backoff import Backoff
from xfleet_runtime.log import get_logger
from xfleet_xraykit.errors import XrayDown, XrayHung, XrayRefused
from xfleet_xraykit.process import StartedXray, boot_id, wait_exit
from xfleet_xraykit.state import State

HEALTHY_AFTER_S = 30.0
FALL_BACK_WITHIN_S = 60.0
"""A new program whose Xray dies so soon after it took over is given up for the one before."""
DRAIN_POLL_S = 1.0
UNCONVERGED = "unconverged"
"""Fact: what the newest Xray was started with, until the first convergence has brought it in line."""
SOURCE = "xray_source"
GEO = "xray_geo"
_log = get_logger(__name__)


def stored_setup(store: StateStore) -> Setup:
    """What the last Xray was started from."""
    return Setup(source=store.fact(SOURCE) or BUNDLED, geo=store.fact(GEO))


class _Record(msgspec.Struct, kw_only=True):
    """What is kept on disk about the Xray that serves now."""

    xray: StartedXray
    version: str = ""
    stopping: bool = False
    """An ordered stop has read everything: its end leaves no gap."""


class Decisions(msgspec.Struct, kw_only=True):
    """What the driver asks others."""

    boot_state: Callable[[], Awaitable[State]]
    """What to start with when this agent finds no Xray."""
    restart_state: Callable[[], Awaitable[State]]
    """What to start with after Xray died."""
    adopted_shape: Callable[[], Awaitable[Shape]]
    """What an adopted Xray runs as far as the disk knows."""
    on_started: Callable[[], None]
    on_died: Callable[[], Awaitable[None]]


class XrayDriver:
    """Drives one serving Xray, and those it has replaced until they are done."""

    def __init__(
        self, processes: Processes, meter: Meter, store: StateStore, worker: Worker, events: Events, *, drain_s: float
    ) -> None:
        self.processes = processes
        self._meter = meter
        self._store = store
        self._worker = worker
        self._events = events
        self._drain_s = drain_s
        self.current: RunningXray | None = None
        self.draining: list[RunningXray] = []
        self.status: Literal["running", "starting", "stopped", "crashed"] = "stopped"
        self.version = ""
        self.setup = stored_setup(store)
        """What the serving Xray was started from, and the next will be."""
        self.last_error = ""
        self.restarts_count = int(store.fact("restarts_count", "0"))
        self.decisions: Decisions | None = None
        self._started_at_s = 0.0
        self._backoff = Backoff(first_s=0.2, most_s=30.0)
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self.trials = Trials(processes, meter, events, self._lock, self.draining, self._drain_later)
        self._drains: asyncio.TaskGroup | None = None
        self._before: tuple[Program, float] | None = None
        """The program before the present one, and until when it is fallen back to."""

    @property
    def wanted_running(self) -> bool:
        """Whether an operator wants Xray to run at all."""
        return self._store.fact("xray_stopped") != "yes"

    def xrays(self) -> list[RunningXray]:
        """Every Xray that counts traffic."""
        return [*([self.current] if self.current else []), *self.draining]

    def state(self) -> XrayState:
        """For the heartbeat."""
        running = self.current
        return XrayState(
            status=self.status,
            version=self.version,
            start_id=running.start_id if running else "",
            pid=running.record.pid if running else 0,
            uptime_s=int(time.monotonic() - self._started_at_s) if running else 0,
            restarts_count=self.restarts_count,
            last_error=self.last_error,
            source=self.setup.version,
        )

    def _decide(self) -> Decisions:
        if self.decisions is None:
            raise RuntimeError("The driver was not wired.")
        return self.decisions

    # Boot and watch

    async def boot(self) -> None:
        """Adopts the Xray a former agent left, or starts one from disk. Never waits for a network."""
        async with self._lock:
            survivors = self.processes.list_survivors()
            record = await self._worker.run(self._read_record)
            await self._adopt(survivors, record)
            if self.current is None and self.wanted_running:
                try:
                    await self._start(await self._decide().boot_state())
                except (XrayDown, XrayHung) as error:
                    self._failed(str(error))

    async def watch(self, group: asyncio.TaskGroup) -> None:
        """Notices when the serving Xray dies and starts it again; runs for ever."""
        self._drains = group
        for running in self.draining:
            group.create_task(self._drain(running, self._drain_s))
        while True:
            running = self.current
            self._changed.clear()
            if running is None:
                await self._revive_or_wait()
                continue
            exited = asyncio.ensure_future(wait_exit(running.record.pid))
            changed = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait({exited, changed}, return_when=asyncio.FIRST_COMPLETED)
                if exited.done() and running is self.current:
                    async with self._lock:
                        if running is self.current:
                            await self._died(running, exited.result())
            finally:
                exited.cancel()
                changed.cancel()
                await asyncio.gather(exited, changed, return_exceptions=True)

    async def _revive_or_wait(self) -> None:
        if self.status == "stopped" and not self.wanted_running:
            await self._changed.wait()
            return
        await asyncio.sleep(self._backoff.next_s())
        async with self._lock:
            if self.current is not None or not self.wanted_running:
                return
            try:
                await self._start(await self._decide().restart_state())
            except (XrayDown, XrayHung) as error:
                self._failed(str(error))
                return
            self.restarts_count += 1
            await self._worker.run(self._store.save_facts, restarts_count=str(self.restarts_count))

    async def _died(self, running: RunningXray, code: int | None) -> None:
        self.current = None
        reason = f"Xray ended: {describe_exit(code)}"
        if time.monotonic() - self._started_at_s > HEALTHY_AFTER_S:
            self._backoff.reset()
        self._failed(reason)
        await running.api.close()
        self.processes.forget(running)
        await noted(self._events, self._meter.finish(running.start_id, lost="xray_died"))
        self._events.tell("xray_crashed", reason=reason, start=running.start_id, output=self.processes.tail())
        self._fall_back(reason)  # first, so that the disk never names the program that failed as the one to start
        await noted(self._events, self._write_record(None))
        await self._decide().on_died()

    def _failed(self, reason: str) -> None:
        self.status = "crashed"
        self.last_error = reason
        _log.error("xray does not run", reason=reason)

    async def _adopt(self, survivors: list[StartedXray], record: _Record | None) -> None:
        by_start = {each.start_id: each for each in survivors}
        if record is not None and record.xray.start_id not in by_start:
            lost = "xray_died" if record.xray.boot_id == boot_id() else "host_died"
            await self._meter.finish(record.xray.start_id, lost="" if record.stopping else lost)
            await self._write_record(None)
        preferred = record.xray.start_id if record else ""
        shape = await self._decide().adopted_shape()
        for survivor in sorted(survivors, key=lambda each: each.start_id != preferred):
            running = await self.processes.find(survivor, shape)
            if running is None:
                running = self.processes.unreachable(survivor)
                await self.processes.end(running)
                await self._meter.finish(survivor.start_id, lost="xray_died")
                self._events.tell("xray_unreachable", start=survivor.start_id)
            elif self.current is None:
                await self._serve(running, version=record.version if record else "", since_s=age_s(survivor))
                self._events.tell("xray_adopted", start=running.start_id, pid=survivor.pid)
            else:
                await self._meter.begin(running)
                with suppress(XrayDown, XrayHung, XrayRefused):
                    await close_inbounds(running)
                self.draining.append(running)
        await self._meter.keep_only(self.xrays())

    # Start, replace, stop

    async def start(self) -> None:
        """Starts Xray by order. Raises `XrayDown` or `XrayHung`."""
        async with self._lock:
            await self._worker.run(self._store.save_facts, xray_stopped="")
            if self.current is None:
                await self._start(await self._decide().boot_state())

    async def replace(self, state: State, *, drain_s: float | None = None) -> None:
        """Starts a new Xray beside the old one, which takes no new connections and ends when it is done.

        Raises `XrayDown` or `XrayHung` when the new one does not come up; the old one then goes on.
        """
        async with self._lock:
            old = self.current
            new = await self._begin(state)
            await self._serve(new, version="")
            await self._retire(old, self._drain_s if drain_s is None else drain_s)

    async def _retire(self, old: RunningXray | None, drain_s: float) -> None:
        if old is None:
            return
        self.draining.append(old)
        try:
            await close_inbounds(old)
        except (XrayDown, XrayHung, XrayRefused) as error:
            _log.warning("the replaced xray could not be told to take nothing more", error=str(error))
        self._drain_later(old, drain_s)

    def _drain_later(self, running: RunningXray, drain_s: float) -> None:
        if self._drains is not None:
            self._drains.create_task(self._drain(running, drain_s))

    # Another program

    async def hand_over(self, new: RunningXray, program: Program) -> None:
        """Makes an Xray that was tried out the serving one. Raises `XrayDown` when it is gone or nothing should run."""
        async with self._lock:
            if new not in self.draining or not self.wanted_running:
                raise XrayDown("Xray was stopped meanwhile.")
            self.draining.remove(new)
            old, before = self.current, self._in_use()
            self._choose(program)
            self._before = (before, time.monotonic() + FALL_BACK_WITHIN_S)
            await self._note_started_with(new.shape)
            await self._serve(new, version=program.version)
            await self._retire(old, self._drain_s)
            self._events.tell("xray_switched", version=program.version, before=before.version)

    async def choose(self, program: Program) -> None:
        """What the next Xray is started from; nothing runs now."""
        async with self._lock:
            self._choose(program)
            await noted(self._events, self._write_record(await self._worker.run(self._read_record)))

    def _choose(self, program: Program) -> None:
        self.processes.launcher, self.setup = program.launcher, program.setup
        self.version = program.version

    def _in_use(self) -> Program:
        return Program(setup=self.setup, launcher=self.processes.launcher, version=self.version)

    def _fall_back(self, reason: str) -> None:
        if self._before is None or time.monotonic() > self._before[1]:
            return
        failed = self.version
        self._choose(self._before[0])
        self._before = None
        self._events.tell("xray_rolled_back", version=failed, back_to=self.version, reason=reason)

    # Start and stop

    async def stop(self, *, by_order: bool) -> None:
        """Stops every Xray after its last byte was read; `by_order` keeps it stopped over restarts."""
        async with self._lock:
            if by_order:
                await self._worker.run(self._store.save_facts, xray_stopped="yes")
            running, self.current = self.current, None
            self.processes.closed = not by_order
            self.status = "stopped"
            self.last_error = ""
            self._changed.set()
            ours = [*([running] if running else []), *self.draining]
            for each in ours:
                await self._finish(each)
            self.draining.clear()
            await self._finish_strangers({each.start_id for each in ours})
            if not self.processes.list_survivors():
                await self._write_record(None)

    async def _start(self, state: State) -> None:
        self.status = "starting"
        running = await self._started_with(state) or await self._started_with(state)
        if running is None:
            _log.error("xray does not start with its state; it starts empty and is filled piece by piece")
            running = await self._begin(State())
        await self._serve(running, version="")
        self._events.tell("xray_started", start=running.start_id, pid=running.record.pid)

    async def _started_with(self, state: State) -> RunningXray | None:
        try:
            return await self._begin(state)
        except (XrayDown, XrayHung) as error:
            self.last_error = f"{error} {self.processes.tail()}".strip()
            _log.warning("xray did not start with its state", error=self.last_error)
            return None

    async def _begin(self, state: State) -> RunningXray:
        """Starts an Xray, and has written down before with what: whoever finds it must not believe it runs `applied`.

        Raises `XrayDown` or `XrayHung`.
        """
        shape = shape_of(state)
        await self._note_started_with(shape)
        return await self.processes.start(state, shape)

    async def _note_started_with(self, shape: Shape) -> None:
        fact = {UNCONVERGED: config_digest(shape)}
        await noted(self._events, self._worker.run(lambda: self._store.save_facts(**fact)))

    async def _serve(self, running: RunningXray, *, version: str, since_s: float = 0.0) -> None:
        self.current = running
        await noted(self._events, self._meter.begin(running))
        self._started_at_s = time.monotonic() - since_s
        self.version = version or self.version
        await noted(self._events, self._write_record(_Record(xray=running.record, version=self.version)))
        self.status = "running"
        self._changed.set()
        self._decide().on_started()

    async def learn_version(self) -> None:
        """Asks once which Xray this is."""
        if not self.version:
            self.version = await self.processes.launcher.version()

    async def _finish(self, running: RunningXray) -> None:
        """Closes the ports, reads until nothing moves, ends the process.

        While the disk takes nothing the process goes on without ports: only its counters know what it moved.
        """
        lost = ""
        try:
            await close_inbounds(running)
            if not await self._meter.read_until_quiet(running):
                lost = "xray_died"
        except (XrayDown, XrayHung, XrayRefused) as error:
            _log.warning("xray could not be stopped in order", error=str(error))
            lost = "xray_died"
        except sqlite3.Error as error:
            _log.error("xray goes on without ports: its last bytes cannot be written down", error=str(error))
            await running.api.close()
            return
        if not lost:
            await self._write_record(_Record(xray=running.record, stopping=True))
        await self.processes.end(running)
        await self._meter.finish(running.start_id, lost=lost)

    async def _finish_strangers(self, known: set[str]) -> None:
        """Ends what a boot that was cut short had found or started, and nobody had taken over yet."""
        for survivor in [each for each in self.processes.list_survivors() if each.start_id not in known]:
            running = await self.processes.find(survivor, Shape())
            if running is None:
                running = self.processes.unreachable(survivor)
            else:
                await noted(self._events, self._meter.begin(running))
            await self._finish(running)

    async def _drain(self, running: RunningXray, drain_s: float) -> None:
        """Lets a replaced Xray finish its connections, reading it until its end."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + drain_s
        lost = ""
        try:
            while loop.time() < deadline:
                await asyncio.sleep(min(DRAIN_POLL_S, drain_s))
                if await self._is_done(running):
                    break
            lost = await self._read_to_the_end(running)
        except (XrayDown, XrayHung):
            lost = "xray_died"
        if running not in self.draining:
            return
        self.draining.remove(running)
        await self.processes.end(running)
        await noted(self._events, self._meter.finish(running.start_id, lost=lost))
        self._events.tell("xray_drained", start=running.start_id)

    async def _read_to_the_end(self, running: RunningXray) -> str:
        """Why bytes are lost, or nothing; waits while the disk takes nothing: only the process knows what it moved.

        Raises `XrayDown` or `XrayHung`.
        """
        while running in self.draining:
            try:
                return "" if await self._meter.read_until_quiet(running, timeout_s=0) else "xray_died"
            except sqlite3.Error as error:
                _log.warning("a replaced xray waits until its last bytes can be written down", error=str(error))
                await asyncio.sleep(DRAIN_POLL_S)
        return ""

    async def _is_done(self, running: RunningXray) -> bool:
        """Whether nothing moves on a replaced Xray any more, and its last reading is on disk."""
        try:
            reading = await self._meter.read(running)
            return not reading.changed_count and not await running.api.online_users()
        except (sqlite3.Error, XrayRefused) as error:
            _log.warning("a replaced xray could not be read now", error=str(error))
            return False

    def _read_record(self) -> _Record | None:
        text = self._store.fact("xray")
        return msgspec.json.decode(text, type=_Record) if text else None

    async def _write_record(self, record: _Record | None) -> None:
        text = msgspec.json.encode(record).decode() if record else ""
        facts = {"xray": text, SOURCE: self.setup.source, GEO: self.setup.geo}
        try:
            await self._worker.run(lambda: self._store.save_facts(**facts))
        except sqlite3.Error as error:
            _log.error("what runs could not be noted; it is found again by its lock", error=str(error))
