"""Backups of both databases: whole, put back whole, and clear words where that cannot be."""

import asyncio
import errno
import io
import os
import tarfile
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from sqlalchemy import select, text

from harness.broker import eventually
from harness.controller import ADMIN, add_server, make_context, open_api, signed_in
from harness.disk import small_disk
from harness.postgres import PostgresServer
from xfleet_contracts.errors import Refusal
from xfleet_controller.all_models import METADATA
from xfleet_controller.auth.models import Session
from xfleet_controller.auth.rights import Actor
from xfleet_controller.backups import archive, contents, jobs, service, store
from xfleet_controller.backups.restore import restore
from xfleet_controller.backups.store import Schedule
from xfleet_controller.config import ControllerSettings
from xfleet_controller.context import Context
from xfleet_controller.db import Database
from xfleet_controller.fleet import store as fleet_store
from xfleet_controller.fleet.keyring import load_or_create_keys, open_vault
from xfleet_controller.fleet.models import OutboxRow
from xfleet_controller.fleet.service import Fleet
from xfleet_controller.vault import Vault
from xfleet_nats.fleet import FleetIssuer
from xfleet_runtime.clock import FakeClock, SystemClock
from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import lock_exclusively
from xfleet_runtime.ids import new_token
from xfleet_runtime.keys.sealed import KeyFile

pytestmark = pytest.mark.postgres
PASSPHRASE = "tests of a backup"
NOT_COMPARED = {"sessions", "settings", "outbox", "audit_log"}


@pytest.fixture
async def fleet(database: Database, tmp_path: Path) -> Context:
    """A controller's parts with a fleet of one server, in a data directory of its own."""
    return await make_fleet(database, tmp_path / "data")


async def make_fleet(database: Database, data_dir: Path, clock: Any = None) -> Context:
    context = make_context(database, data_dir, clock=clock)
    context.vault = Vault(KeyFile.load_or_create(context.settings.key_file))
    keys, _ = await load_or_create_keys(database, context.vault, context.settings.root_file, context.clock)
    context.fleet = Fleet(FleetIssuer(keys), None, ("tls://127.0.0.1:1",), context.vault, context.clock)  # type: ignore[arg-type]
    await add_server(context)
    (data_dir / "up.json").write_text("{}")
    return context


async def backup(context: Context, target: Path) -> Path:
    assert context.fleet is not None
    made = await asyncio.to_thread(
        contents.write_backup,
        data_dir=context.settings.data_dir,
        database_url=context.settings.database,
        fleet_id=context.fleet.issuer.keys.fleet_id,
        passphrase=PASSPHRASE,
        target=target,
        now=context.clock.now(),
    )
    return made.path


@pytest.fixture
async def elsewhere(
    database: Database, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[ControllerSettings]:
    """Settings of an empty place for a database of the same kind."""
    if database.is_sqlite:
        yield ControllerSettings(data_dir=tmp_path / "elsewhere")
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = f"r{new_token()[:10].lower().replace('-', '_')}"
    server.run(f'CREATE DATABASE "{name}"')
    yield ControllerSettings(data_dir=tmp_path / "elsewhere", database_url=server.url(name))
    server.run(f'DROP DATABASE "{name}" WITH (FORCE)')


async def rows_of(database: Database) -> dict[str, list[Any]]:
    async with database.read() as session:
        return {
            table.name: sorted(map(str, (await session.execute(select(table))).all()))
            for table in METADATA.sorted_tables
            if table.name not in NOT_COMPARED
        }


async def test_a_restored_backup_is_the_same_and_goes_on(
    fleet: Context, elsewhere: ControllerSettings, tmp_path: Path
) -> None:
    async with signed_in(fleet):
        pass
    before = await rows_of(fleet.database)
    file = await backup(fleet, tmp_path / "a.xfb")
    await add_server(fleet, "later")
    restored = await restore(elsewhere, file, PASSPHRASE, SystemClock(), force=False)
    assert restored.kept_aside is None
    assert (elsewhere.data_dir / "up.json").read_text() == "{}"
    assert (elsewhere.key_file.stat().st_mode & 0o777) == 0o600
    database = Database(elsewhere.database)
    try:
        assert await rows_of(database) == before
        async with database.read() as session:
            assert (await session.scalars(select(Session))).all() == []
            topics = [row.payload.get("type") for row in await session.scalars(select(OutboxRow))]
            assert "backup_restored" in topics
        await open_vault(database, elsewhere.key_file)
        context = make_context(database, elsewhere.data_dir)
        context.vault = await open_vault(database, elsewhere.key_file)
        assert (await add_server(context, "next")).id > 1
    finally:
        await database.close()
    left = {path.name for path in elsewhere.data_dir.iterdir()}
    assert not {name for name in left if name.startswith(".")}


async def test_a_database_in_use_is_copied_at_one_moment(
    fleet: Context, tmp_path: Path, elsewhere: ControllerSettings
) -> None:
    """Two settings are always written together; a copy between them would tell them apart."""
    stop = asyncio.Event()

    async def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            async with fleet.database.write() as session:
                await fleet_store.set_setting(session, "one", number, fleet.clock.now())
                await session.flush()
                await fleet_store.set_setting(session, "two", number, fleet.clock.now())

    writer = asyncio.ensure_future(write())
    try:
        file = await backup(fleet, tmp_path / "a.xfb")
    finally:
        stop.set()
        await writer
    await restore(elsewhere, file, PASSPHRASE, SystemClock(), force=False)
    database = Database(elsewhere.database)
    async with database.read() as session:
        one, two = [await fleet_store.find_setting(session, key) for key in ("one", "two")]
    await database.close()
    assert one == two


async def test_nothing_changes_when_the_file_or_the_passphrase_is_wrong(
    fleet: Context, elsewhere: ControllerSettings, tmp_path: Path
) -> None:
    file = await backup(fleet, tmp_path / "a.xfb")
    half = tmp_path / "half.xfb"
    half.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    for source, passphrase, says in (
        (file, "not the passphrase", "does not open"),
        (half, PASSPHRASE, "cut off"),
        (tmp_path / "none.xfb", PASSPHRASE, "Cannot read"),
    ):
        with pytest.raises(Unusable, match=says):
            await restore(elsewhere, source, passphrase, SystemClock(), force=False)
        if elsewhere.data_dir.exists():
            assert {path.name for path in elsewhere.data_dir.iterdir()} <= {"up.lock", "controller.lock"}


async def test_a_used_or_another_database_is_refused(database: Database, fleet: Context, tmp_path: Path) -> None:
    file = await backup(fleet, tmp_path / "a.xfb")
    if database.is_sqlite:
        other, says = "postgresql+psycopg://nobody@127.0.0.1:1/none", "of a sqlite database"
    else:
        other, says = "", "of a postgresql database"
        used = ControllerSettings(data_dir=tmp_path / "used", database_url=database.url)
        with pytest.raises(Unusable, match="not empty"):
            await restore(used, file, PASSPHRASE, SystemClock(), force=True)
    settings = ControllerSettings(data_dir=tmp_path / "other", database_url=other)
    with pytest.raises(Unusable, match=says):
        await restore(settings, file, PASSPHRASE, SystemClock(), force=False)


@pytest.mark.parametrize("step", ["_prove", "_swap"])
async def test_a_restore_that_fails_late_leaves_the_database_as_empty_as_it_was(
    fleet: Context, elsewhere: ControllerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = await backup(fleet, tmp_path / "a.xfb")
    with monkeypatch.context() as patched:
        patched.setattr(f"xfleet_controller.backups.restore.{step}", fails)
        with pytest.raises(OSError, match="No space"):
            await restore(elsewhere, file, PASSPHRASE, SystemClock(), force=False)
    assert (await restore(elsewhere, file, PASSPHRASE, SystemClock(), force=False)).kept_aside is None


async def test_a_sqlite_database_is_not_restored_beside_the_one_that_is_named(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'data' / 'xfleet.db'}")
    await database.migrate()
    file = await backup(await make_fleet(database, tmp_path / "data"), tmp_path / "a.xfb")
    await database.close()
    new = tmp_path / "new"
    other = ControllerSettings(data_dir=new, database_url=f"sqlite+aiosqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(Unusable, match="names another file"):
        await restore(other, file, PASSPHRASE, SystemClock(), force=False)
    same = ControllerSettings(data_dir=new, database_url=f"sqlite+aiosqlite:///{new / 'xfleet.db'}")
    await restore(same, file, PASSPHRASE, SystemClock(), force=False)
    assert not (tmp_path / "other.db").exists()


async def test_force_puts_what_was_there_aside(tmp_path: Path) -> None:
    data = tmp_path / "data"
    database = Database(f"sqlite+aiosqlite:///{data / 'xfleet.db'}")
    await database.migrate()
    fleet = await make_fleet(database, data)
    settings = ControllerSettings(data_dir=data)
    file = await backup(fleet, tmp_path / "a.xfb")
    await add_server(fleet, "later")
    await database.close()
    (data / "agent").mkdir()
    with pytest.raises(Unusable, match="is not empty"):
        await restore(settings, file, PASSPHRASE, SystemClock(), force=False)
    lock = lock_exclusively(data / "controller.lock", owner="A controller")
    with pytest.raises(Unusable, match="already runs"):
        await restore(settings, file, PASSPHRASE, SystemClock(), force=True)
    os.close(lock)
    restored = await restore(settings, file, PASSPHRASE, SystemClock(), force=True)
    assert restored.kept_aside is not None
    assert (restored.kept_aside / "xfleet.db").exists()
    assert (data / "agent").is_dir()
    again = Database(settings.database)
    async with again.read() as session:
        assert (await session.execute(text("SELECT count(*) FROM servers"))).scalar() == 1
    await again.close()


@pytest.mark.parametrize("name", ["files/../../evil", "/etc/evil", "files/agent/identity.json", "other/x", "files"])
async def test_an_archive_cannot_write_elsewhere(tmp_path: Path, name: str) -> None:
    described = contents.Description(
        made_at=datetime.now(UTC), version="1", fleet_id="f", database="sqlite", revision="x", tables={}, files=()
    )
    with (tmp_path / "evil.xfb").open("wb") as out, archive.writing(out, PASSPHRASE, "now") as tar:
        for path, data in ((contents.DESCRIPTION, msgspec.json.encode(described)), (name, b"evil")):
            member = tarfile.TarInfo(path)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    settings = ControllerSettings(data_dir=tmp_path / "here")
    with pytest.raises(Unusable, match="holds a"):
        await restore(settings, tmp_path / "evil.xfb", PASSPHRASE, SystemClock(), force=False)
    assert not (tmp_path / "evil").exists()


async def test_the_api_makes_lists_sends_and_removes(fleet: Context, api_of: Any) -> None:
    api: httpx.AsyncClient = await api_of(fleet)
    assert (await api.post("/api/v1/backups", json={})).json()["errors"][0]["code"] == "too_short"
    made = await api.post("/api/v1/backups", json={"passphrase": PASSPHRASE})
    assert made.status_code == 201, made.text
    name = made.json()["name"]
    assert [each["name"] for each in (await api.get("/api/v1/backups")).json()["items"]] == [name]
    sent = await api.get(f"/api/v1/backups/{name}/file")
    assert sent.content.startswith(archive.MAGIC)
    assert "attachment" in sent.headers["content-disposition"]
    for other in ("../keys/key-file", "..%2fkeys%2fkey-file", "key-file", f"{name}.x"):
        assert (await api.get(f"/api/v1/backups/{other}/file")).status_code in {404, 405}
    assert (await api.delete(f"/api/v1/backups/{name}")).status_code == 204
    assert (await api.delete(f"/api/v1/backups/{name}")).status_code == 404
    async with fleet.database.read() as session:
        kinds = [row.payload.get("type") for row in await session.scalars(select(OutboxRow))]
    assert kinds.count(service.MADE) == 1


@pytest.fixture
async def api_of() -> AsyncIterator[Any]:
    clients: list[Any] = []

    async def sign_in(context: Context) -> httpx.AsyncClient:
        entered = signed_in(context)
        clients.append(entered)
        return await entered.__aenter__()

    yield sign_in
    for each in clients:
        with suppress(RuntimeError):
            await each.__aexit__(None, None, None)


async def test_only_an_owner_may(fleet: Context) -> None:
    for role in ("operator", "support", "read-only"):
        with pytest.raises(Refusal) as refused:
            await service.make(fleet, Actor(name="x", role=role), secret=PASSPHRASE)
        assert refused.value.code == "forbidden"


async def test_a_schedule_makes_keeps_and_drops(database: Database, tmp_path: Path) -> None:
    clock = FakeClock(datetime(2026, 6, 1, tzinfo=UTC))
    context = await make_fleet(database, tmp_path / "data", clock)
    with pytest.raises(Refusal, match="passphrase"):
        await service.plan(context, ADMIN, Schedule(every_hours=6))
    by_hand = await service.make(context, ADMIN, secret=PASSPHRASE)
    await service.plan(context, ADMIN, Schedule(every_hours=6, keep_count=2), secret=PASSPHRASE)
    directory = tmp_path / "data" / "backups"
    loop = asyncio.ensure_future(jobs.keep_schedule(context))
    try:
        for number in range(4):
            hours = [(clock.now() - timedelta(hours=6 * ago)).hour for ago in range(min(number + 1, 2))]

            async def kept(hours: list[int] = hours) -> bool:
                context.backups.changed.set()
                return [each.made_at.hour for each in store.list_backups(directory) if each.scheduled] == hours

            await eventually(kept, within_s=20)
            clock.advance(6 * 3600)
    finally:
        loop.cancel()
        with suppress(asyncio.CancelledError):
            await loop
    assert by_hand.name in {each.name for each in store.list_backups(directory)}


def test_the_next_one_is_due_after_the_last_and_a_little_after_a_failure() -> None:
    now = datetime(2026, 6, 1, tzinfo=UTC)
    assert jobs.due_at(Schedule(), now, None) is None
    assert jobs.due_at(Schedule(every_hours=6), now, None) == now + timedelta(hours=6)
    first = jobs.due_at(Schedule(every_hours=6), None, None)
    assert first is not None
    assert first < now
    assert jobs.due_at(Schedule(every_hours=6), None, now) == now + jobs.RETRY


@pytest.mark.parametrize(
    ("schedule", "field"),
    [
        (Schedule(every_hours=-1), "every_hours"),
        (Schedule(keep_count=0), "keep_count"),
        (Schedule(directory="relative/path"), "directory"),
        (Schedule(directory="/proc/nowhere"), "directory"),
        (Schedule(directory="{data}/keys"), "directory"),
    ],
    ids=["hours", "keep", "relative", "unwritable", "among_keys"],
)
async def test_a_plan_that_cannot_work_is_refused(fleet: Context, schedule: Schedule, field: str) -> None:
    directory = schedule.directory.format(data=fleet.settings.data_dir)
    with pytest.raises(Refusal) as refused:
        await service.plan(fleet, ADMIN, msgspec.structs.replace(schedule, directory=directory), secret=PASSPHRASE)
    assert refused.value.details["errors"][0]["field"] == field


async def test_a_full_disk_is_told_keeps_the_old_ones_and_leaves_no_rest(
    pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    with small_disk(pytestconfig, size_bytes=8 * 1024 * 1024) as disk:
        data = disk.path / "data"
        database = Database(f"sqlite+aiosqlite:///{tmp_path / 'elsewhere.db'}")
        await database.migrate()
        context = await make_fleet(database, data)
        kept = await service.make(context, ADMIN, secret=PASSPHRASE)
        disk.fill()
        for _ in range(2):
            with pytest.raises(service.BackupFailed) as refused:
                await service.make(context, ADMIN, secret=PASSPHRASE)
            assert "Free space" in refused.value.text
        assert {path.name for path in (data / "backups").iterdir()} == {kept.name}
        assert not list(data.glob(".*"))
        async with database.read() as session:
            events = [row.payload for row in await session.scalars(select(OutboxRow))]
        assert [each["type"] for each in events if each.get("type") == service.FAILED] == [service.FAILED]
        disk.empty()
        await service.make(context, ADMIN, secret=PASSPHRASE)
        assert context.backups.last_error == ""
        await database.close()


async def test_two_at_once_are_one_and_a_clear_no(fleet: Context) -> None:
    made = await asyncio.gather(
        *(service.make(fleet, ADMIN, secret=PASSPHRASE) for _ in range(2)), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in made) == ["Backup", "BackupRunning"]
    assert fleet.backups.last_error == ""


async def test_what_a_killed_backup_left_goes_with_the_next(fleet: Context) -> None:
    left = fleet.settings.data_dir / ".backup-0000"
    left.mkdir()
    (left / "xfleet.db").write_bytes(b"half")
    await service.make(fleet, ADMIN, secret=PASSPHRASE)
    assert not left.exists()


async def test_the_age_of_the_newest_backup_is_a_figure(fleet: Context) -> None:
    await service.make(fleet, ADMIN, secret=PASSPHRASE)
    loop = asyncio.ensure_future(jobs.keep_schedule(fleet))
    await eventually(lambda: fleet.backups.newest_at is not None)
    loop.cancel()
    with suppress(asyncio.CancelledError):
        await loop
    async with open_api(fleet) as api:
        figures = (await api.get("http://127.0.0.1/metrics")).text
    assert "xfleet_backup_age_seconds" in figures
    assert "xfleet_data_dir_free_bytes" in figures
