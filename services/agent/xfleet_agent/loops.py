"""The agent's steady rhythms, each a named loop under the supervisor."""

import asyncio
import sqlite3

from xfleet_agent import outbox
from xfleet_agent.lean import give_back_memory
from xfleet_agent.parts import Parts
from xfleet_agent.settings import AgentSettings
from xfleet_contracts import codec, streams, subjects
from xfleet_runtime.broker import BrokerOutage
from xfleet_runtime.log import get_logger
from xfleet_runtime.supervise import every
from xfleet_xraykit.errors import XrayDown, XrayHung, XrayRefused

HOUSEKEEPING_S = 60.0
DISK_CHECK_S = 5.0
LOGS_CHECK_S = 10.0
EVENTS_POLL_S = 0.5
RETRY_S = 1.0
_log = get_logger(__name__)


class Loops:
    """What happens again and again."""

    def __init__(self, parts: Parts, settings: AgentSettings) -> None:
        self._parts = parts
        self._settings = settings

    async def meter(self) -> None:
        """Reads the counters, then lets limits and courier look."""
        parts = self._parts

        async def step() -> None:
            await parts.meter.read_all(parts.driver.xrays())
            if parts.meter.moved:
                parts.governor.wake()
            parts.courier.wake()

        await every(self._settings.meter_interval_s, step)

    async def converge(self) -> None:
        """Brings Xray in line whenever somebody says it may not be."""
        parts = self._parts
        while True:
            await parts.applier.wake.wait()
            if parts.driver.current is None:
                parts.applier.wake.clear()
                continue
            await self._converge()
            parts.beat.set()

    async def drift(self) -> None:
        """Compares Xray's users with what we left there, and patches what differs."""

        async def step() -> None:
            if self._parts.driver.current is not None:
                await self._check_drift()
                await self._parts.applier.tidy()

        await every(self._settings.drift_interval_s, step)

    async def _check_drift(self) -> None:
        try:
            outcome = await self._parts.applier.check_drift()
        except (XrayDown, XrayHung) as error:
            _log.warning("xray could not be checked for drift", reason=str(error))
            return
        if outcome is not None and outcome.drifted:
            self._parts.events.tell("drift_patched", steps=outcome.steps_count)

    async def _converge(self) -> None:
        parts = self._parts
        try:
            await parts.applier.converge()
        except (XrayDown, XrayHung, sqlite3.Error) as error:
            _log.warning("xray could not be brought in line now", reason=str(error))
            await asyncio.sleep(RETRY_S)
            if parts.driver.current is not None:
                parts.applier.wake.set()

    async def probation(self) -> None:
        """Calls configuration good once it ran long enough."""
        await every(max(0.2, min(5.0, self._settings.probation_s / 4)), self._parts.applier.prove)

    async def events(self) -> None:
        """Sends what happened, in order."""
        parts = self._parts
        while True:
            event = parts.events.peek()
            if event is None or not parts.link.connected:
                await asyncio.sleep(EVENTS_POLL_S)
                continue
            try:
                await parts.link.publish_stored(
                    subjects.agent_event(parts.sid), codec.encode(event), message_id=event.id,
                    stream=streams.AGENT_EVENTS.name,
                )  # fmt: skip
            except BrokerOutage as outage:
                _log.debug("an event waits", reason=str(outage))
                await asyncio.sleep(RETRY_S * 5)
                continue
            parts.events.sent(event)

    async def disk(self) -> None:
        """Looks how much room the state directory has."""
        await every(DISK_CHECK_S, lambda: self._parts.worker.run(self._parts.disk.look), first_s=0)

    async def housekeeping(self) -> None:
        """Forgets what is old and remembers what time it is."""
        parts = self._parts

        async def step() -> None:
            now_ms = parts.clock.now_ms()
            await parts.worker.run(outbox.prune, parts.spool, now_ms=now_ms)
            give_back_memory()
            await parts.worker.run(parts.journal.prune, now_ms)
            await parts.worker.run(lambda: parts.store.save_facts(**parts.clock.facts()))

        await parts.driver.learn_version()
        await every(HOUSEKEEPING_S, step)

    async def logs(self) -> None:
        """Keeps Xray's logs short."""
        parts = self._parts

        async def step() -> None:
            try:
                await parts.driver.processes.rotate_logs(parts.driver.xrays())
            except (XrayDown, XrayHung, XrayRefused, OSError) as error:
                _log.warning("xray's logs could not be set aside now", reason=str(error))

        await every(LOGS_CHECK_S, step)
