"""Puts a backup back: into an empty directory, or in place of what is there when nothing runs.

Everything is unpacked and proven beside its place first, so that a bad file or a full disk changes nothing.
"""

import asyncio
import os
import secrets
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec
from sqlalchemy import delete, update

from xfleet_controller.audit.store import note
from xfleet_controller.auth.models import Session
from xfleet_controller.auth.rights import SYSTEM
from xfleet_controller.backups import archive, contents, snapshot
from xfleet_controller.backups.contents import DATABASE, DESCRIPTION, FILES, Description
from xfleet_controller.config import ControllerSettings
from xfleet_controller.db import Database
from xfleet_controller.fleet import store as fleet_store
from xfleet_controller.fleet.keyring import load_keys, open_vault
from xfleet_controller.fleet.manifest import RESTORED
from xfleet_controller.fleet.models import EnrollmentToken
from xfleet_controller.outbox import note_event
from xfleet_migrations import runner
from xfleet_runtime.clock import Clock
from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import lock_exclusively, private_directory, sync_directory, writable_directory

HARMLESS = frozenset({"agent", "logs", contents.BACKUPS, "up.lock", "controller.lock", "backup.lock"})
"""What may lie in an `empty` directory: nothing of it is the controller's state."""
REPLACED = ("keys", "tls", "up.json", "run.json", "xfleet.toml", "xfleet.db", "xfleet.db-wal", "xfleet.db-shm")
BROKER_STORE = "broker/js"
"""What the broker kept is of another time than the restored ledger: agents send again what is missing."""


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What was put back."""

    description: Description
    data_dir: Path
    kept_aside: Path | None
    """Where what was there before lies now."""


async def restore(
    settings: ControllerSettings, source: Path, passphrase: str, clock: Clock, *, force: bool
) -> Restored:
    """Puts the archive into the data directory (and the database). Raises `Unusable`."""
    data_dir = settings.data_dir
    with ExitStack() as held:
        file = held.enter_context(_opened(source))
        _check_place(data_dir, force=force)
        writable_directory(data_dir)
        for lock, owner in (("up.lock", "xfleet up"), ("controller.lock", "A controller")):
            held.callback(os.close, lock_exclusively(data_dir / lock, owner=owner))
        stage = held.enter_context(_stage(data_dir))
        description = await asyncio.to_thread(_unpack, file, source, passphrase, stage)
        _check(settings, description, stage)
        if description.database == "postgresql":
            await asyncio.to_thread(snapshot.load_postgresql, settings.database, stage / DATABASE, description.revision)
        try:
            await _prove(_staged(settings, description, stage), description, clock)
            aside = _swap(data_dir, stage, description, clock.now())
        except BaseException:
            if description.database == "postgresql":
                snapshot.empty_postgresql(settings.database)
            raise
    return Restored(description=description, data_dir=data_dir, kept_aside=aside)


@contextmanager
def _opened(source: Path) -> Iterator[IO[bytes]]:
    try:
        file = source.open("rb")
    except OSError as error:
        raise Unusable(f"Cannot read {source}: {error.strerror}. Check the path.") from error
    with file:
        yield file


def _check_place(data_dir: Path, *, force: bool) -> None:
    if not data_dir.exists() or force:
        return
    try:
        found = sorted(path.name for path in data_dir.iterdir() if path.name not in HARMLESS)
    except OSError as error:
        raise Unusable(f"Cannot read {data_dir}: {error.strerror}. Choose another directory.") from error
    if found:
        raise Unusable(
            f"{data_dir} is not empty ({', '.join(found[:3])}{', …' if len(found) > 3 else ''}). "  # noqa: PLR2004
            "Give an empty --data-dir, or --force to put what is there aside."
        )


@contextmanager
def _stage(data_dir: Path) -> Iterator[Path]:
    for left in data_dir.glob(".restore-*"):
        shutil.rmtree(left, ignore_errors=True)
    stage = private_directory(data_dir / f".restore-{secrets.token_hex(4)}")
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _unpack(file: IO[bytes], source: Path, passphrase: str, stage: Path) -> Description:
    """Everything in the archive below `stage`, after its end has been proven."""
    description: Description | None = None
    with archive.reading(file, passphrase, source.name) as tar:
        for member in tar:
            if description is None:
                description = _describe(tar, member, source.name)
                continue
            target = stage / _safe(member, source.name)
            private_directory(target.parent)
            content = tar.extractfile(member)
            if content is None:
                raise Unusable(f"{source.name} holds something that is no file: {member.name}.")
            with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                shutil.copyfileobj(content, out, 1024 * 1024)
                out.flush()
                os.fsync(out.fileno())
    if description is None:
        raise Unusable(f"{source.name} is empty.")
    missing = [name for name in description.files if not (stage / FILES / name).is_file()]
    missing += [name for name in description.tables if not (stage / DATABASE / name).is_file()]
    if missing:
        raise Unusable(f"{source.name} lacks {missing[0]}. Use another backup.")
    return description


def _describe(tar: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> Description:
    content = tar.extractfile(member) if member.name == DESCRIPTION and member.size < contents.MAX_FILE_BYTES else None
    try:
        described = msgspec.json.decode(content.read() if content else b"")
        if isinstance(described, dict) and described.get("format") != contents.FORMAT:
            raise Unusable(f"{name} is of a newer release. Restore it with that release.")
        return msgspec.convert(described, Description)
    except msgspec.MsgspecError as error:
        raise Unusable(f"{name} does not describe itself: {error}.") from error


def _safe(member: tarfile.TarInfo, name: str) -> PurePosixPath:
    """The member's place, which lies below ours: whoever has the passphrase is not trusted with the whole disk."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or path.parts[0] not in {FILES, DATABASE} or not member.isfile():
        raise Unusable(f"{name} holds a path that leaves its place: {member.name!r}.")
    inner = "/".join(path.parts[1:])
    if path.parts[0] == FILES and not any(inner == kept or inner.startswith(f"{kept}/") for kept in contents.KEPT):
        raise Unusable(f"{name} holds a file that no backup has: {member.name!r}.")
    return path


def _check(settings: ControllerSettings, description: Description, stage: Path) -> None:
    kind = snapshot.kind_of(settings.database)
    if kind != description.database:
        hint = "Give --database-url postgresql+psycopg://…" if kind == "sqlite" else "Leave out --database-url"
        raise Unusable(f"This backup is of a {description.database} database, and this is {kind}. {hint}.")
    place = settings.data_dir / snapshot.SQLITE_FILE
    if kind == "sqlite" and snapshot.sqlite_path(settings.database).resolve() != place.resolve():
        raise Unusable(
            f"A SQLite database is restored to {place}, and --database-url names another file. Leave it out."
        )
    if not runner.is_known(description.revision):
        raise Unusable(
            f"The backup was made by a newer release ({description.version}). Install that release to restore it."
        )
    if kind == "postgresql":
        snapshot.refuse_used(settings.database)
    else:
        snapshot.check_sqlite(stage / DATABASE / snapshot.SQLITE_FILE)


def _swap(data_dir: Path, stage: Path, description: Description, now: datetime) -> Path | None:
    """Moves what was there aside, and the restored into its place."""
    there = [name for name in REPLACED if (data_dir / name).exists()]
    aside = private_directory(data_dir / f"before-restore-{now:%Y%m%dT%H%M%SZ}") if there else None
    for name in there:
        (data_dir / name).rename(data_dir / (aside or "") / name)
    shutil.rmtree(data_dir / BROKER_STORE, ignore_errors=True)
    for name in description.files:
        target = data_dir / name
        if name.startswith("broker/jwt/") and target.exists():
            continue  # it may know later revocations than the backup does
        private_directory(target.parent)
        (stage / FILES / name).replace(target)
    if description.database == "sqlite":
        (stage / DATABASE / snapshot.SQLITE_FILE).replace(data_dir / snapshot.SQLITE_FILE)
    sync_directory(data_dir)
    return aside


def _staged(settings: ControllerSettings, description: Description, stage: Path) -> ControllerSettings:
    """The settings of a controller over what was unpacked."""
    sqlite = f"sqlite+aiosqlite:///{stage / DATABASE / snapshot.SQLITE_FILE}"
    url = sqlite if description.database == "sqlite" else settings.database
    return msgspec.structs.replace(settings, data_dir=stage / FILES, database_url=url)


async def _prove(settings: ControllerSettings, description: Description, clock: Clock) -> None:
    """Proves that keys and database belong together, and ends what must not come back to life."""
    database = Database(settings.database)
    try:
        await database.migrate()
        keys = await load_keys(database, await open_vault(database, settings.key_file))
        if keys is None:
            raise Unusable("The backup holds a database without a fleet.")
        now = clock.now()
        async with database.write() as session:
            await session.execute(delete(Session))
            await session.execute(
                update(EnrollmentToken).where(EnrollmentToken.used_at.is_(None)).values(expires_at=now)
            )
            await fleet_store.set_setting(session, RESTORED, clock.now_ms(), now)
            details = {"made_at": description.made_at.isoformat(), "version": description.version}
            note(session, SYSTEM, "restore_backup", "backup", description.fleet_id, now, after=details)
            note_event(session, "backup_restored", now, subject=description.fleet_id, details=details)
    finally:
        await database.close()
    if database.is_sqlite:
        snapshot.settle(snapshot.sqlite_path(settings.database))
