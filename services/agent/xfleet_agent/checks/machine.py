"""Checks of the machine itself: Xray, disk, clock, broker, spool."""

import asyncio
import time

from xfleet_agent.aside import aside
from xfleet_agent.checks.outcome import Outcome, timed
from xfleet_agent.disk import free_space
from xfleet_agent.parts import Parts
from xfleet_contracts.care import CheckResult
from xfleet_runtime.broker import BrokerOutage
from xfleet_xraykit.errors import XrayDown, XrayHung

LEAST_FREE_BYTES = 64 * 1024 * 1024
MOST_OFFSET_S = 30
OLD_BATCH_S = 300
SLOW_BROKER_S = 2.0
MIB = 1024 * 1024


async def check_machine(parts: Parts) -> list[CheckResult]:
    """All of them, side by side."""
    checks = {
        "xray": _xray(parts),
        "disk": _disk(parts),
        "clock": _clock(parts),
        "broker": _broker(parts),
        "spool": _spool(parts),
    }
    return list(await asyncio.gather(*(timed(name, check) for name, check in checks.items())))


async def _xray(parts: Parts) -> Outcome:
    running = parts.driver.current
    if running is None:
        if not parts.driver.wanted_running:
            return Outcome("warning", "Xray was stopped by an operator.")
        return Outcome("failed", parts.driver.last_error or f"Xray is {parts.driver.status}.")
    try:
        stats = await running.api.sys_stats()
    except (XrayDown, XrayHung) as error:
        return Outcome("failed", str(error))
    version = parts.driver.version
    if parts.applier.degraded:
        return Outcome("warning", f"Xray {version} runs without {len(parts.applier.degraded)} refused entities.")
    return Outcome("ok", f"Xray {version} runs for {stats.uptime_s} s.")


async def _disk(parts: Parts) -> Outcome:
    try:
        free_bytes, total_bytes = await aside(free_space, parts.settings.state_dir)
    except OSError as error:
        return Outcome("failed", f"The state directory cannot be looked at: {error.strerror}.")
    text = f"{free_bytes // MIB} of {total_bytes // MIB} MiB are free."
    if free_bytes < LEAST_FREE_BYTES:
        return Outcome("failed", text)
    return Outcome("warning" if free_bytes < parts.settings.disk_low_bytes else "ok", text)


async def _clock(parts: Parts) -> Outcome:
    offset_s = parts.clock.offset_ms / 1000
    if not parts.clock.trusted:
        return Outcome("failed", "The clock jumped by more than a day; no client is cut by time.")
    if abs(offset_s) > MOST_OFFSET_S:
        return Outcome("warning", f"The clock is {abs(offset_s):.0f} s {'behind' if offset_s > 0 else 'ahead'}.")
    return Outcome("ok", f"The clock differs by {abs(offset_s):.1f} s from the controller's.")


async def _broker(parts: Parts) -> Outcome:
    started = time.monotonic()
    try:
        await parts.link.flush()
    except BrokerOutage as outage:
        return Outcome("failed", str(outage))
    took_s = time.monotonic() - started
    text = f"{parts.link.url} answers within {took_s * 1000:.0f} ms."
    return Outcome("warning" if took_s > SLOW_BROKER_S else "ok", text)


async def _spool(parts: Parts) -> Outcome:
    if parts.meter.last_error:
        return Outcome("failed", parts.meter.last_error)
    figures = await parts.worker.run(parts.spool.figures)
    waiting = f"{figures.sealed_batches_count} batches and {figures.open_rows_count} rows wait for the ledger."
    age_s = (parts.clock.now_ms() - figures.oldest_at_ms) / 1000 if figures.oldest_at_ms else 0
    if figures.sealed_batches_count and age_s > OLD_BATCH_S:
        return Outcome("warning", f"{waiting} The oldest for {age_s / 60:.0f} minutes.")
    return Outcome("ok", waiting)
