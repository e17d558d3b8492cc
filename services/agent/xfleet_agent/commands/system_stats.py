"""`system.stats`: the machine, the agent and Xray in figures."""

import msgspec
import psutil

from xfleet_agent.desk import Verb
from xfleet_agent.parts import Parts
from xfleet_contracts.commands import SystemStats
from xfleet_xraykit.api import SysStats
from xfleet_xraykit.errors import XrayDown, XrayHung

NAME = "system.stats"


def verb(parts: Parts) -> Verb:
    """How it is carried out."""

    async def handle(_body: msgspec.Raw) -> SystemStats:
        xray = await _xray(parts)
        return SystemStats(
            host=await parts.worker.run(parts.host.read),
            spool=await parts.worker.run(parts.spool.figures),
            xray_uptime_s=xray.uptime_s,
            xray_memory_bytes=xray.memory_bytes,
            xray_goroutines_count=xray.goroutines_count,
            agent_memory_bytes=psutil.Process().memory_info().rss,
            commands_refused=dict(parts.desk.refused_counts),
        )

    return Verb(handler=handle)


async def _xray(parts: Parts) -> SysStats:
    running = parts.driver.current
    if running is None:
        return SysStats(0, 0, 0)
    try:
        return await running.api.sys_stats()
    except (XrayDown, XrayHung):
        return SysStats(0, 0, 0)
