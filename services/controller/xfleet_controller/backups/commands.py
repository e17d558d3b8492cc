"""`xfleet-controller backup` and `restore`."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from xfleet_controller.backups import contents, passphrase
from xfleet_controller.config import ControllerSettings
from xfleet_controller.db import Database, require_database
from xfleet_controller.fleet.keyring import load_keys, open_vault
from xfleet_runtime.clock import Clock, SystemClock
from xfleet_runtime.errors import Unusable

PASSPHRASE_FILE = click.option(
    "--passphrase-file",
    "backup_passphrase_file",
    type=click.Path(path_type=Path),
    help="File with the passphrase; else XFLEET_BACKUP_PASSPHRASE, else it is asked for.",
)


async def back_up(settings: ControllerSettings, output: Path | None, clock: Clock | None = None) -> contents.Made:
    """One backup of the data directory, while everything runs or nothing does. Raises `Unusable`."""
    if not settings.data_dir.is_dir():
        raise Unusable(f"There is no {settings.data_dir}. Give --data-dir.")
    now = (clock or SystemClock()).now()
    fleet_id = await fleet_of(settings)
    secret = passphrase.ask_or_configured(settings, twice=True)
    target = (output or settings.data_dir / contents.BACKUPS).expanduser().absolute()
    if output is None or target.is_dir():
        target /= contents.file_name(now)
    return await asyncio.to_thread(
        contents.write_backup,
        data_dir=settings.data_dir,
        database_url=settings.database,
        fleet_id=fleet_id,
        passphrase=secret,
        target=target,
        now=now,
    )


async def fleet_of(settings: ControllerSettings) -> str:
    """The fleet's id: proves that key file and database belong together. Raises `Unusable`."""
    require_database(settings)
    database = Database(settings.database)
    try:
        await database.check_form(newest=False)
        keys = await load_keys(database, await open_vault(database, settings.key_file))
    finally:
        await database.close()
    if keys is None:
        raise Unusable(f"There is no fleet in {settings.data_dir}. Give --data-dir, or start xfleet once.")
    return keys.fleet_id


async def put_back(settings: ControllerSettings, source: Path, *, force: bool) -> None:
    """Restores, and says what comes next. Raises `Unusable`."""
    from xfleet_controller.backups.restore import restore  # noqa: PLC0415  only this command needs so many parts

    secret = passphrase.ask_or_configured(settings, twice=False)
    restored = await restore(settings, source.expanduser().absolute(), secret, SystemClock(), force=force)
    click.echo(
        f"Restored the backup of {restored.description.made_at:%Y-%m-%d %H:%M} UTC "
        f"(release {restored.description.version}) into {restored.data_dir}."
    )
    if restored.kept_aside is not None:
        click.echo(f"What was there before lies in {restored.kept_aside}.")
    click.echo("Start it again; the agents return by themselves. Everybody has to sign in anew.")
    click.echo("Servers, tokens or admins that were revoked after the backup: revoke them again.")


def tell_made(made: contents.Made) -> None:
    """Where the backup lies."""
    click.echo(f"{made.path} ({made.size_bytes:,} bytes)")
    sys.stdout.flush()


def options_of_backup(command: Any) -> Any:
    """The options of `backup`."""
    output = click.option(
        "--output", "-o", type=click.Path(path_type=Path), help="File or directory. [DATA-DIR/backups/…]"
    )
    return PASSPHRASE_FILE(output(command))


def options_of_restore(command: Any) -> Any:
    """The options of `restore`."""
    force = click.option("--force", is_flag=True, help="Put what is in the directory aside; nothing may run there.")
    return click.argument("file", type=click.Path(path_type=Path))(PASSPHRASE_FILE(force(command)))
