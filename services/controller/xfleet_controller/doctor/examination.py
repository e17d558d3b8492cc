"""The whole examination, in an order in which each finding explains the next; it works with everything down."""

from importlib.metadata import version
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from xfleet_controller.app import BROKER_URLS
from xfleet_controller.backups import contents
from xfleet_controller.backups.store import Schedule, find_schedule
from xfleet_controller.config import ControllerSettings
from xfleet_controller.db import Database, require_database
from xfleet_controller.doctor import fleet, machine
from xfleet_controller.doctor.findings import Finding, failed, ok
from xfleet_controller.fleet import store as fleet_store
from xfleet_controller.fleet.keyring import load_keys, open_vault
from xfleet_nats.fleet import FleetKeys
from xfleet_runtime.clock import Clock
from xfleet_runtime.errors import Unusable


async def examine(settings: ControllerSettings, clock: Clock) -> list[Finding]:
    """Looks at everything; never raises for what it finds."""
    data_dir = settings.data_dir
    if not data_dir.is_dir():
        return [failed("data-dir", f"there is no {data_dir}", "give --data-dir, or start xfleet once")]
    now, running, memory = clock.now(), machine.is_running(data_dir), machine.recall(data_dir)
    findings = [
        *machine.check_versions(),
        *machine.check_directory(data_dir),
        *machine.check_keys(settings),
        *machine.check_panel_certificate(settings, now),
    ]
    schedule, keys, urls = Schedule(), None, ()
    try:
        require_database(settings)
        database = Database(settings.database)
        try:
            await database.check_form(newest=True)
            findings += [ok("database", "reachable and up to date"), await fleet.check_integrity(settings)]
            schedule, urls = await _remembered(database, settings)
            servers = await fleet.check_servers(database, now, running=running, own_version=version("xfleet"))
            keys = await _keys(database, settings, findings)
            findings += servers
        finally:
            await database.close()
    except DBAPIError as error:
        findings.append(fleet.unreachable(error))
    except Unusable as error:
        findings.append(failed("database", str(error), ""))
    if keys is not None:
        findings += fleet.check_authorities(keys, now)
    findings += machine.check_ports(memory, running=running)
    if keys is not None and urls:
        findings += await fleet.check_broker(keys, urls, clock)
    findings.append(await fleet.check_panel(settings, memory, running=running))
    directory = Path(schedule.directory) if schedule.directory else data_dir / contents.BACKUPS
    findings.append(machine.check_backups(directory, schedule.every_hours, now))
    findings.append(machine.check_service())
    return findings


async def _remembered(database: Database, settings: ControllerSettings) -> tuple[Schedule, tuple[str, ...]]:
    async with database.read() as session:
        schedule = await find_schedule(session)
        stored = await fleet_store.find_setting(session, BROKER_URLS)
    given = tuple(url.strip() for url in settings.broker_url.split(",") if url.strip())
    return schedule, given or tuple(stored or ())


async def _keys(database: Database, settings: ControllerSettings, findings: list[Finding]) -> FleetKeys | None:
    """The fleet's keys; a key file of another fleet is a finding of its own."""
    if not settings.key_file.exists():
        return None
    try:
        keys = await load_keys(database, await open_vault(database, settings.key_file))
    except Unusable as error:
        findings.append(failed("keys", str(error), "put back the key file of this database from a backup"))
        return None
    if keys is None:
        findings.append(failed("keys", "there is no fleet in the database", "start xfleet once"))
        return None
    findings.append(ok("keys", f"fleet {keys.fleet_id}: key file and database belong together"))
    return keys
