"""Trials: another Xray is started beside the serving one and must stay up before it may take over."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec

from xfleet_agent.events import Events
from xfleet_agent.meter import Meter
from xfleet_agent.plan import shape_of
from xfleet_agent.processes import Processes, RunningXray, describe_exit
from xfleet_agent.setups import Setup
from xfleet_xraykit.counters import inbound_tag
from xfleet_xraykit.errors import XrayDown, XrayHung, XrayRefused
from xfleet_xraykit.launcher import Launcher
from xfleet_xraykit.process import wait_exit
from xfleet_xraykit.state import State


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """An Xray to start, and what it is."""

    setup: Setup
    launcher: Launcher
    version: str = ""


class Trials:
    """Works under the driver's lock and on its list of those that count beside the serving one."""

    def __init__(
        self,
        processes: Processes,
        meter: Meter,
        events: Events,
        lock: asyncio.Lock,
        beside: list[RunningXray],
        drain_later: Callable[[RunningXray, float], None],
    ) -> None:
        self._processes = processes
        self._meter = meter
        self._events = events
        self._lock = lock
        self._beside = beside
        self._drain_later = drain_later

    async def try_out(self, program: Program, state: State, *, trial_s: float) -> RunningXray:
        """Starts an Xray of this program beside the serving one and sees whether it stays up; both take connections.

        Raises `XrayDown` or `XrayHung` when it does not; the serving one goes on as if nothing had been.
        """
        async with self._lock:
            new = await self._processes.start(state, shape_of(state), launcher=program.launcher)
            self._beside.append(new)
            await noted(self._events, self._meter.begin(new))
        try:
            await self._stays_up(new, state, trial_s)
        except BaseException:
            await asyncio.shield(self.give_up(new))
            raise
        return new

    async def _stays_up(self, new: RunningXray, state: State, trial_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(trial_s):
                code = await wait_exit(new.record)
                raise XrayDown(f"It ended after its start: {describe_exit(code)}. {self._processes.tail()}".strip())
        await new.api.sys_stats()
        missing = {inbound_tag(ref) for ref in state.inbounds} - set(await new.api.list_inbounds())
        if missing:
            raise XrayDown(f"It runs without {len(missing)} of the inbounds.")

    async def give_up(self, new: RunningXray) -> None:
        """Ends an Xray that was tried out; while the disk takes nothing it goes on without ports, and is drained."""
        async with self._lock:
            if new not in self._beside:
                return
            quiet = False
            try:
                await close_inbounds(new)
                quiet = await self._meter.read_until_quiet(new)
            except sqlite3.Error:
                self._drain_later(new, 0)
                return
            except (XrayDown, XrayHung, XrayRefused):
                pass
            self._beside.remove(new)
            await self._processes.end(new)
            await noted(self._events, self._meter.finish(new.start_id, lost="" if quiet else "xray_died"))


async def close_inbounds(running: RunningXray) -> None:
    """Lets it take no new connections. Raises `XrayDown`, `XrayHung` or `XrayRefused`."""
    for tag in await running.api.list_inbounds():
        await running.api.remove_inbound(tag)


async def noted(events: Events, writing: Awaitable[None]) -> None:
    """Writes down if the disk lets us; one that is full must not keep Xray from being started and watched.

    Nothing is lost by that: a reading names its start itself, and a process is found again by its lock.
    """
    try:
        await writing
    except sqlite3.Error as error:
        events.tell("state_unwritable", error=str(error))
