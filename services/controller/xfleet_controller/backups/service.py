"""The rules of backups in a running controller: who may, where to, with which passphrase, and what is told."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sqlalchemy.exc import DBAPIError

from xfleet_contracts.errors import Refusal
from xfleet_controller.audit.store import note
from xfleet_controller.auth.rights import SYSTEM, Actor, authorize
from xfleet_controller.backups import contents, passphrase, store
from xfleet_controller.backups.archive import MIN_PASSPHRASE
from xfleet_controller.backups.store import Backup, Schedule
from xfleet_controller.context import Context
from xfleet_controller.errors import FieldError, Invalid, NotFound, invalid
from xfleet_controller.outbox import note_event
from xfleet_controller.texts import has_controls
from xfleet_runtime.errors import Unusable
from xfleet_runtime.log import get_logger
from xfleet_runtime.main import describe_disk_error

_log = get_logger(__name__)
ACTION = "fleet.backup"
MADE, FAILED = "backup_made", "backup_failed"
MAX_HOURS, MAX_KEEP_COUNT, MAX_PASSPHRASE = 24 * 31, 1000, 1000
PRIVATE_PLACES = ("keys", "agent", "broker", "tls", "logs")
"""Inside the data directory: no place for backups."""


class BackupFailed(Refusal):
    """The backup could not be made; nothing was left behind, and older ones are untouched."""

    code = "backup_failed"
    status = 507
    message = "The backup could not be made."


class BackupRunning(Refusal):
    """One at a time."""

    code = "backup_running"
    status = 409
    message = "A backup is being made already. Wait for it."


class Overview(NamedTuple):
    """What is there and what is planned."""

    backups: Sequence[Backup]
    schedule: Schedule
    directory: Path
    passphrase_known: bool
    last_error: str


async def look(context: Context, actor: Actor) -> Overview:
    """Backups, newest first, and the schedule."""
    authorize(actor, ACTION)
    async with context.database.read() as session:
        schedule = await store.find_schedule(session)
        known = bool(await store.find_passphrase(session, context.vault)) or bool(_configured(context))
    directory = directory_of(context, schedule)
    found = await asyncio.to_thread(store.list_backups, directory)
    return Overview(found, schedule, directory, known, context.backups.last_error)


async def make(context: Context, actor: Actor, *, secret: str = "", scheduled: bool = False) -> Backup:
    """Makes a backup now; without a passphrase with the one that is set.

    Raises `Invalid`, `BackupRunning` or `BackupFailed`.
    """
    authorize(actor, ACTION)
    async with context.database.read() as session:
        schedule = await store.find_schedule(session)
        secret = secret or await store.find_passphrase(session, context.vault) or _configured(context)
    _check_passphrase(secret)
    if context.fleet is None:
        raise BackupFailed("There is no fleet yet.")
    if context.backups.making.locked():
        raise BackupRunning
    now = context.clock.now()
    try:
        async with context.backups.making:
            made = await asyncio.to_thread(
                contents.write_backup,
                data_dir=context.settings.data_dir,
                database_url=context.settings.database,
                fleet_id=context.fleet.issuer.keys.fleet_id,
                passphrase=secret,
                target=directory_of(context, schedule) / store.name_of(now, scheduled=scheduled),
                now=now,
            )
    except (Unusable, OSError, DBAPIError, *contents.DATABASE_ERRORS) as error:
        reason = describe_disk_error(error) or str(error)
        await note_failure(context, reason)
        raise BackupFailed(reason) from error
    context.backups.last_error = ""
    await _note_made(context, actor, made)
    if scheduled:
        await asyncio.to_thread(_drop_surplus, made.path.parent, schedule.keep_count)
    return Backup(name=made.path.name, size_bytes=made.size_bytes, made_at=now, scheduled=scheduled)


async def find_file(context: Context, actor: Actor, name: str) -> Path:
    """The file of a backup, for sending it. Raises `NotFound`."""
    authorize(actor, ACTION)
    async with context.database.write() as session:
        directory = directory_of(context, await store.find_schedule(session))
        path = directory / name
        if not store.is_name(name) or path.is_symlink() or not path.is_file():
            raise NotFound("There is no such backup.")
        note(session, actor, "download_backup", "backup", name, context.clock.now())
    return path


async def remove(context: Context, actor: Actor, name: str) -> None:
    """Removes a backup. Raises `NotFound`."""
    authorize(actor, ACTION)
    async with context.database.write() as session:
        path = directory_of(context, await store.find_schedule(session)) / name
        if not store.is_name(name) or path.is_symlink() or not path.is_file():
            raise NotFound("There is no such backup.")
        path.unlink()
        note(session, actor, "delete_backup", "backup", name, context.clock.now())


async def plan(context: Context, actor: Actor, schedule: Schedule, *, secret: str | None = None) -> Schedule:
    """Changes the schedule; a passphrase of None stays as it is, an empty one is forgotten. Raises `Invalid`."""
    authorize(actor, ACTION)
    now = context.clock.now()
    errors = _schedule_errors(schedule)
    if not errors and schedule.directory:
        errors = await asyncio.to_thread(_directory_errors, context, Path(schedule.directory))
    if errors:
        raise Invalid(errors)
    if secret:
        _check_passphrase(secret)
    async with context.database.write() as session:
        before = await store.find_schedule(session)
        if secret is not None:
            await store.set_passphrase(session, context.vault, secret, now)
        known = await store.find_passphrase(session, context.vault) or _configured(context)
        if schedule.every_hours and not known:
            raise invalid("passphrase", "Scheduled backups need a passphrase.", "required")
        await store.set_schedule(session, schedule, now)
        note(session, actor, "plan_backups", "settings", store.SCHEDULE, now, before=before, after=schedule)
    context.backups.changed.set()
    return schedule


def directory_of(context: Context, schedule: Schedule) -> Path:
    """Where backups go."""
    return Path(schedule.directory) if schedule.directory else context.settings.data_dir / contents.BACKUPS


def _configured(context: Context) -> str:
    try:
        return passphrase.configured(context.settings)
    except Unusable as error:
        _log.warning("the passphrase of backups is not readable", reason=str(error))
        return ""


def _check_passphrase(secret: str) -> None:
    if not MIN_PASSPHRASE <= len(secret) <= MAX_PASSPHRASE:
        code = "too_short" if len(secret) < MIN_PASSPHRASE else "too_long"
        text = f"A passphrase has {MIN_PASSPHRASE} to {MAX_PASSPHRASE} characters: it protects every key of the fleet."
        raise invalid("passphrase", text if secret else "Give a passphrase, or set one for all backups.", code)
    if has_controls(secret):
        raise invalid("passphrase", "A passphrase is one line.", "invalid")


def _schedule_errors(schedule: Schedule) -> list[FieldError]:
    errors: list[FieldError] = []
    if not 0 <= schedule.every_hours <= MAX_HOURS:
        errors.append(FieldError("every_hours", f"From 1 to {MAX_HOURS} hours; 0 for never.", "out_of_range"))
    if not 1 <= schedule.keep_count <= MAX_KEEP_COUNT:
        errors.append(FieldError("keep_count", f"From 1 to {MAX_KEEP_COUNT}.", "out_of_range"))
    directory = schedule.directory
    if directory and (has_controls(directory) or not directory.startswith("/") or ".." in Path(directory).parts):
        errors.append(FieldError("directory", "Give an absolute path, such as /mnt/backups/xfleet.", "invalid"))
    return errors


def _directory_errors(context: Context, directory: Path) -> list[FieldError]:
    """Tried now, so that the first night does not find it out."""
    resolved, root = directory.resolve(), context.settings.data_dir.resolve()
    if resolved == root or any(resolved.is_relative_to(root / place) for place in PRIVATE_PLACES):
        return [FieldError("directory", "This place belongs to the fleet itself. Choose another.", "invalid")]
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        trial = directory / f".xfleet-{context.clock.now_ms()}"
        trial.touch(exist_ok=False)
        trial.unlink()
    except OSError as error:
        return [FieldError("directory", f"Cannot write there: {error.strerror}.", "not_writable")]
    return []


async def note_failure(context: Context, reason: str) -> None:
    """Told once per reason; a full disk may refuse even these words."""
    told, context.backups.last_error = context.backups.last_error == reason, reason
    _log.warning("a backup failed", reason=reason)
    if told:
        return
    now = context.clock.now()
    try:
        async with context.database.write() as session:
            note_event(session, FAILED, now, details={"reason": reason})
            note(session, SYSTEM, FAILED, "backup", "", now, after={"reason": reason})
    except DBAPIError as error:
        context.backups.last_error = ""
        _log.warning("a failed backup could not be told", reason=str(error.orig))


async def _note_made(context: Context, actor: Actor, made: contents.Made) -> None:
    now, details = context.clock.now(), {"name": made.path.name, "size_bytes": made.size_bytes}
    async with context.database.write() as session:
        note(session, actor, "make_backup", "backup", made.path.name, now, after=details)
        note_event(session, MADE, now, subject=made.path.name, details=details)


def _drop_surplus(directory: Path, keep_count: int) -> None:
    for each in store.surplus(store.list_backups(directory), keep_count):
        (directory / each.name).unlink(missing_ok=True)
