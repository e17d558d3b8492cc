"""The loop that makes backups when they are due."""

import asyncio
from datetime import UTC, datetime, timedelta

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from xfleet_controller.auth.rights import SYSTEM
from xfleet_controller.backups import service, store
from xfleet_controller.context import Context
from xfleet_controller.errors import Invalid

RETRY = timedelta(minutes=15)
LOOK_EVERY_S = 60.0


def due_at(schedule: store.Schedule, last_at: datetime | None, failed_at: datetime | None) -> datetime | None:
    """When the next backup is due; None for never. After a failure it waits a little."""
    if not schedule.every_hours:
        return None
    due = last_at + timedelta(hours=schedule.every_hours) if last_at else datetime.min.replace(tzinfo=UTC)
    return max(due, failed_at + RETRY) if failed_at else due


async def keep_schedule(context: Context) -> None:
    """Makes backups when they are due, for ever; what goes wrong is told and tried again."""
    failed_at: datetime | None = None
    while True:
        context.backups.changed.clear()
        async with context.database.read() as session:
            schedule = await store.find_schedule(session)
        directory = service.directory_of(context, schedule)
        found = await asyncio.to_thread(store.list_backups, directory)
        context.backups.newest_at = found[0].made_at if found else None
        last_at = next((each.made_at for each in found if each.scheduled), None)
        due = due_at(schedule, last_at, failed_at)
        if due is not None and due <= context.clock.now():
            failed_at = None if await _make(context) else context.clock.now()
            continue
        try:
            async with asyncio.timeout(LOOK_EVERY_S):
                await context.backups.changed.wait()
            failed_at = None
        except TimeoutError:
            continue


async def _make(context: Context) -> bool:
    try:
        await service.make(context, SYSTEM, scheduled=True)
    except service.BackupRunning:
        return False
    except (service.BackupFailed, Invalid) as refusal:
        if isinstance(refusal, Invalid):
            await service.note_failure(context, refusal.text)
        return False
    return True


class BackupFigures(Collector):
    """How old the newest backup is, for alarms."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def collect(self) -> list[GaugeMetricFamily]:
        """Nothing while there is no backup."""
        state = self._context.backups
        age = GaugeMetricFamily("xfleet_backup_age_seconds", "Since the newest backup was made.")
        if state.newest_at is not None:
            age.add_metric([], (self._context.clock.now() - state.newest_at).total_seconds())
        failed = GaugeMetricFamily("xfleet_backup_failed", "Whether the last backup failed.")
        failed.add_metric([], float(bool(state.last_error)))
        return [age, failed]


def register_figures(registry: CollectorRegistry, context: Context) -> None:
    """Adds the figures to those the controller tells."""
    registry.register(BackupFigures(context))
