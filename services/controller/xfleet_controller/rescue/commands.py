"""`xfleet-controller admin list | create | reset-password`."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from xfleet_controller.auth.passwords import Passwords
from xfleet_controller.auth.rights import OWNER, ROLES
from xfleet_controller.backups.passphrase import read_file
from xfleet_controller.config import ControllerSettings
from xfleet_controller.db import Database
from xfleet_controller.rescue import service
from xfleet_runtime.clock import SystemClock
from xfleet_runtime.main import run_async

PASSWORD_FILE = click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    help="File with the password; without one it is made up and shown.",
)


def admin_group(common: Callable[[Any], Any], settings_of: Callable[..., ControllerSettings]) -> click.Group:
    """The commands; `common` adds the options that all of the controller's have."""

    @click.group()
    def admin() -> None:
        """Admins, straight in the database: also while nothing runs."""

    @admin.command(name="list")
    @common
    @click.option("--json", "as_json", is_flag=True, help="For programs.")
    def list_all(config: Path | None, *, as_json: bool, **given: Any) -> None:
        """Show all admins."""

        async def show(database: Database) -> None:
            tell(await service.list_admins(database), as_json=as_json)

        return _run(settings_of(given, config, quiet=True), show)

    @admin.command()
    @common
    @PASSWORD_FILE
    @click.option("--role", default=OWNER, show_default=True, type=click.Choice(list(ROLES)))
    @click.argument("name")
    def create(config: Path | None, name: str, role: str, password_file: Path | None, **given: Any) -> None:
        """Make an admin."""
        password = read_file(password_file) if password_file else ""

        async def make(database: Database) -> None:
            made = await service.create_admin(database, Passwords(), SystemClock(), name, role, password)
            _tell_password(name, made, given=bool(password))

        return _run(settings_of(given, config, quiet=True), make)

    @admin.command(name="reset-password")
    @common
    @PASSWORD_FILE
    @click.option("--remove-totp", is_flag=True, help="Ask for no code any more.")
    @click.argument("name")
    def reset(config: Path | None, name: str, password_file: Path | None, *, remove_totp: bool, **given: Any) -> None:
        """Give an admin a new password, enable it, and end its sessions."""
        password = read_file(password_file) if password_file else ""

        async def renew(database: Database) -> None:
            made = await service.reset_password(
                database, Passwords(), SystemClock(), name, password, remove_totp=remove_totp
            )
            _tell_password(name, made, given=bool(password))
            if await service.has_totp(database, name):
                click.echo("A code is still asked for; --remove-totp takes that away.", err=True)
            if tokens := await service.count_tokens(database, name):
                click.echo(f"{tokens} API tokens of this admin still work; end them in the panel.", err=True)

        return _run(settings_of(given, config, quiet=True), renew)

    return admin


def tell(admins: list[service.AdminLine], *, as_json: bool) -> None:
    """The list, for people or programs."""
    if as_json:
        click.echo(msgspec.json.encode(admins).decode())
        return
    for each in admins:
        marks = [each.role, *([] if each.enabled else ["disabled"]), *(["code"] if each.totp else [])]
        seen = f"{each.last_login_at:%Y-%m-%d %H:%M} UTC" if each.last_login_at else "never signed in"
        click.echo(f"{each.name:<24} {', '.join(marks):<24} {seen}")


def _tell_password(name: str, password: str, *, given: bool) -> None:
    click.echo(f"{name}: the password is set." if given else f"{name}: the new password is {password}")
    sys.stdout.flush()


def _run(settings: ControllerSettings, act: Callable[[Database], Awaitable[None]]) -> None:
    async def with_database() -> None:
        async with service.opened(settings) as database:
            await act(database)

    run_async(with_database())
