"""What a backup holds: a description, the database, and the files without which the agents would not come back."""

import io
import os
import secrets
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from xfleet_controller.backups import archive, snapshot
from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import lock_exclusively, private_directory, sync_directory

FORMAT = 1
DESCRIPTION = "backup.json"
DATABASE = "database"
FILES = "files"
KEPT = ("keys", "tls", "broker/jwt", "up.json", "xfleet.toml")
"""What is taken of the data directory, beside the database. The broker's configuration is rendered from the keys."""
LEFT_OUT = ("keys/local-agent.token",)
MAX_FILE_BYTES = 16 * 1024 * 1024
SUFFIX = ".xfb"
BACKUPS = "backups"
_WORK = ".backup-"
DATABASE_ERRORS = (sqlite3.Error,)
"""What the databases' own drivers raise while they are copied."""


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """The first thing in an archive."""

    format: int = FORMAT
    made_at: datetime
    version: str
    fleet_id: str
    database: str
    """`sqlite` or `postgresql`."""
    revision: str
    """Of the database's tables."""
    tables: dict[str, int]
    """Files of the database with their sizes."""
    files: tuple[str, ...]


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A backup that was made."""

    path: Path
    size_bytes: int
    made_at: datetime


def file_name(now: datetime) -> str:
    """Sorts by time, and says what it is."""
    return f"xfleet-{now:%Y%m%dT%H%M%SZ}{SUFFIX}"


def write_backup(
    *, data_dir: Path, database_url: str, fleet_id: str, passphrase: str, target: Path, now: datetime
) -> Made:
    """One backup at `target`, durable and whole, or nothing there at all. Blocks: run it in a thread.

    Raises `Unusable` when another one is being made, and `OSError` or a database error on a full disk.
    """
    check_passphrase(passphrase)
    private_directory(target.parent)
    with _work_directory(data_dir) as work:
        sizes = snapshot.take(database_url, work)
        revision = snapshot.revision_of(_snapshot_url(database_url, work))
        files = tuple(sorted(_list_files(data_dir)))
        description = Description(
            made_at=now,
            version=version("xfleet"),
            fleet_id=fleet_id,
            database=snapshot.kind_of(database_url),
            revision=revision or "",
            tables=sizes,
            files=files,
        )
        partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as out:
                with archive.writing(out, passphrase, now.isoformat()) as tar:
                    _fill(tar, description, data_dir, work)
                out.flush()
                os.fsync(out.fileno())
                size_bytes = out.tell()
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        sync_directory(target.parent)
        return Made(path=target, size_bytes=size_bytes, made_at=now)


def check_passphrase(passphrase: str) -> None:
    """Raises `Unusable` for one that is too short to protect keys."""
    if len(passphrase) < archive.MIN_PASSPHRASE:
        raise Unusable(
            f"The passphrase needs at least {archive.MIN_PASSPHRASE} characters: it protects every key of the fleet."
        )


def _snapshot_url(database_url: str, work: Path) -> str:
    if snapshot.kind_of(database_url) == "sqlite":
        return f"sqlite:///{work / snapshot.SQLITE_FILE}"
    return database_url


@contextmanager
def _work_directory(data_dir: Path) -> Iterator[Path]:
    """A directory for the snapshot; what a killed backup left behind goes first."""
    lock = lock_exclusively(data_dir / "backup.lock", owner="A backup")
    try:
        for left in data_dir.glob(f"{_WORK}*"):
            shutil.rmtree(left, ignore_errors=True)
        work = private_directory(data_dir / f"{_WORK}{secrets.token_hex(4)}")
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
    finally:
        os.close(lock)


def _list_files(data_dir: Path) -> Iterator[str]:
    for kept in KEPT:
        place = data_dir / kept
        for path in [place] if place.is_file() else sorted(place.rglob("*")):
            name = path.relative_to(data_dir).as_posix()
            if path.is_file() and not path.is_symlink() and name not in LEFT_OUT and not path.name.startswith("."):
                yield name


def _fill(tar: tarfile.TarFile, description: Description, data_dir: Path, work: Path) -> None:
    _add(tar, DESCRIPTION, msgspec.json.encode(description), description.made_at)
    for name in description.files:
        path = data_dir / name
        if path.stat().st_size > MAX_FILE_BYTES:
            raise Unusable(f"{path} is too large for a key file. Move it out of the way.")
        _add(tar, f"{FILES}/{name}", path.read_bytes(), description.made_at)
    for name in description.tables:
        member = tarfile.TarInfo(f"{DATABASE}/{name}")
        member.size, member.mode, member.mtime = description.tables[name], 0o600, int(description.made_at.timestamp())
        with (work / name).open("rb") as file:
            tar.addfile(member, file)


def _add(tar: tarfile.TarFile, name: str, data: bytes, made_at: datetime) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(data), 0o600, int(made_at.timestamp())
    tar.addfile(member, io.BytesIO(data))
