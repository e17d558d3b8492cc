"""Heartbeat: tells everyone that this agent is alive and what it runs, on a steady rhythm and at once after changes."""

import asyncio
import random
from pathlib import Path

from xfleet_agent.disk import free_space
from xfleet_agent.parts import Parts
from xfleet_agent.version import agent_version
from xfleet_contracts import codec, subjects
from xfleet_contracts.heartbeat import MAX_ONLINE_REFS, Heartbeat
from xfleet_runtime.broker import BrokerLink, BrokerOutage
from xfleet_runtime.log import get_logger
from xfleet_xraykit.counters import parse_email
from xfleet_xraykit.errors import XrayDown, XrayHung, XrayRefused

SHORTEST_S = 0.2
"""Beats that follow each other closer than this are one."""
_log = get_logger(__name__)


class Heart:
    """Beats."""

    def __init__(self, parts: Parts, link: BrokerLink, *, interval_s: float) -> None:
        self._parts = parts
        self._link = link
        self._interval_s = interval_s
        self._seq = 0

    async def run(self) -> None:
        """Beats for ever; a lost link loses beats and nothing else."""
        wait_s = random.uniform(0, min(1.0, self._interval_s))  # noqa: S311  jitter, not a secret
        while True:
            self._parts.beat.clear()
            if self._link.connected:
                try:
                    await self._link.publish(subjects.heartbeat(self._parts.sid), codec.encode(await self.compose()))
                except BrokerOutage as outage:
                    _log.debug("a heartbeat was lost", reason=str(outage))
            await asyncio.sleep(min(SHORTEST_S, self._interval_s))
            try:
                async with asyncio.timeout(wait_s or self._interval_s):
                    await self._parts.beat.wait()
            except TimeoutError:
                pass
            wait_s = self._interval_s

    async def compose(self) -> Heartbeat:
        """The next beat."""
        parts = self._parts
        self._seq += 1
        online = await online_clients(parts)
        store = parts.store
        return Heartbeat(
            instance=parts.instance,
            seq=self._seq,
            sent_at_ms=parts.system_clock.now_ms(),
            clock_offset_ms=parts.clock.offset_ms,
            agent_version=agent_version(),
            agent_uptime_s=int(parts.system_clock.monotonic_s() - parts.started_s),
            epoch=parts.spool.epoch,
            wanted_revision=store.wanted_point.revision,
            wanted_digest=store.wanted_point.digest,
            applied_revision=store.applied_point.revision,
            applied_digest=store.applied_point.digest,
            degraded_count=len(parts.applier.degraded),
            cuts_count=len(store.cuts),
            manifest_serial=parts.identity.manifest.serial,
            upgradable=parts.releases.upgradable,
            link=self._link.way,
            free_state_bytes=await parts.worker.run(_free_bytes, parts.settings.state_dir),
            credentials_expire_at_ms=parts.identity.credentials().expires_at * 1000,
            xray=parts.driver.state(),
            host=await parts.worker.run(parts.host.read),
            spool=await parts.worker.run(parts.spool.figures),
            online_count=len(online),
            online=tuple(sorted(online)[:MAX_ONLINE_REFS]),
        )


def _free_bytes(state_dir: Path) -> int:
    try:
        return free_space(state_dir)[0]
    except OSError:
        return 0


async def online_clients(parts: Parts) -> set[int]:
    """Clients with an open stream, as Xray knows them, and those that moved bytes since the last reading."""
    online = set(parts.meter.moved)
    running = parts.driver.current
    if running is None:
        return online
    try:
        users = await running.api.online_users()
    except (XrayDown, XrayHung, XrayRefused):
        return online
    return online | {refs[0] for email in users if (refs := parse_email(email)) is not None}
