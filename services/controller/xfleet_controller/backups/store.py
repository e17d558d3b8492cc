"""Where the schedule of backups is kept, and which backups lie in the directory."""

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.backups.contents import SUFFIX
from xfleet_controller.fleet import store as fleet_store
from xfleet_controller.fleet.models import FleetSecret
from xfleet_controller.vault import Vault

SCHEDULE = "backup_schedule"
PASSPHRASE = "backup_passphrase"  # noqa: S105  the name of a row
RECORD = f"fleet:{PASSPHRASE}"
_NAME = re.compile(rf"xfleet-(\d{{8}}T\d{{6}}Z)(-auto)?{re.escape(SUFFIX)}")


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """When backups are made by themselves, and how many stay."""

    every_hours: int = 0
    """0: never."""
    keep_count: int = 7
    """Scheduled backups that stay; those made by hand are never removed."""
    directory: str = ""
    """Absolute; empty: `backups` in the data directory."""


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """A backup in the directory."""

    name: str
    size_bytes: int
    made_at: datetime
    scheduled: bool


def name_of(now: datetime, *, scheduled: bool) -> str:
    """A file name that sorts by time and says who made it."""
    return f"xfleet-{now:%Y%m%dT%H%M%SZ}{'-auto' if scheduled else ''}{SUFFIX}"


def is_name(name: str) -> bool:
    """Whether a file of this name is ours: nothing else is ever shown, sent or removed."""
    return _NAME.fullmatch(name) is not None


def list_backups(directory: Path) -> list[Backup]:
    """What lies there, newest first; nothing when the directory cannot be read."""
    found: list[Backup] = []
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return []
    for entry in entries:
        match = _NAME.fullmatch(entry.name)
        try:
            if match and entry.is_file(follow_symlinks=False):
                made_at = datetime.strptime(match[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                size_bytes = entry.stat(follow_symlinks=False).st_size
                found.append(
                    Backup(name=entry.name, size_bytes=size_bytes, made_at=made_at, scheduled=match[2] is not None)
                )
        except (OSError, ValueError):
            continue
    return sorted(found, key=lambda each: (each.made_at, each.name), reverse=True)


def surplus(backups: Sequence[Backup], keep_count: int) -> list[Backup]:
    """Scheduled backups beyond those that stay; the newest stay."""
    return [each for each in backups if each.scheduled][max(1, keep_count) :]


async def find_schedule(session: AsyncSession) -> Schedule:
    """The schedule; the defaults when none was ever set."""
    value: Any = await fleet_store.find_setting(session, SCHEDULE)
    return msgspec.convert(value, Schedule) if value else Schedule()


async def set_schedule(session: AsyncSession, schedule: Schedule, now: datetime) -> None:
    """Keeps the schedule."""
    await fleet_store.set_setting(session, SCHEDULE, msgspec.to_builtins(schedule), now)


async def find_passphrase(session: AsyncSession, vault: Vault) -> str:
    """The passphrase that was set in the panel; empty for none."""
    sealed = await fleet_store.find_secret(session, PASSPHRASE)
    return vault.open(RECORD, sealed).decode() if sealed else ""


async def set_passphrase(session: AsyncSession, vault: Vault, passphrase: str, now: datetime) -> None:
    """Keeps the passphrase sealed under the key file; an empty one forgets it."""
    await session.execute(delete(FleetSecret).where(FleetSecret.name == PASSPHRASE))
    if passphrase:
        sealed = vault.seal(RECORD, passphrase.encode())
        session.add(FleetSecret(name=PASSPHRASE, sealed=sealed, created_at=now, updated_at=now))
