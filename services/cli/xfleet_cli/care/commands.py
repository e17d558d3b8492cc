"""`xfleet backup`, `restore`, `admin` and `doctor`: the controller's own commands, on the usual data directory."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from xfleet_cli.up.parts import script
from xfleet_cli.up.settings import UpSettings, data_directory
from xfleet_runtime.known_settings import environment_of

_DATA_DIR = click.option("--data-dir", type=click.Path(path_type=Path), help="Where everything lives. [as `xfleet up`]")
_DATABASE_URL = click.option(
    "--database-url", help="Only where the controller is not on the SQLite file of `xfleet up`."
)
_PASSPHRASE = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    help="File with the passphrase; else XFLEET_BACKUP_PASSPHRASE, else it is asked for.",
)


def hand_over(command: Sequence[str], data_dir: Path | None, *arguments: object) -> None:
    """Becomes `xfleet-controller COMMAND`; options whose value is None or False are left out. Does not return."""
    given = data_dir or (Path(found) if (found := os.environ.get("XFLEET_DATA_DIR")) else None)
    root = data_directory(UpSettings(data_dir=given))
    program = script("xfleet-controller")
    sys.stdout.flush()
    os.execve(  # noqa: S606  our own program, without a shell
        program,
        [program, *command, "--data-dir", str(root), *(str(each) for each in arguments)],
        environment_of("controller", os.environ),
    )


def _options(**given: object) -> list[object]:
    """Options as words: a flag alone, a value after its name."""
    words: list[object] = []
    for name, value in given.items():
        if value is True:
            words.append(f"--{name.replace('_', '-')}")
        elif value not in (None, False):
            words += [f"--{name.replace('_', '-')}", value]
    return words


@click.command()
@_DATA_DIR
@_DATABASE_URL
@_PASSPHRASE
@click.option("--output", "-o", type=click.Path(path_type=Path), help="File or directory. [DATA-DIR/backups/…]")
def backup(data_dir: Path | None, **given: object) -> None:
    """Make one encrypted file with the database and all keys, also while everything runs."""
    hand_over(["backup"], data_dir, *_options(**given))


@click.command()
@_DATA_DIR
@_DATABASE_URL
@click.option("--json", is_flag=True, help="For programs.")
def doctor(data_dir: Path | None, **given: object) -> None:
    """Look at everything and say what is wrong; exit code 1 when something failed."""
    hand_over(["doctor"], data_dir, *_options(**given))


@click.group()
def admin() -> None:
    """Admins, straight in the database: also while nothing runs."""


_PASSWORD = click.option(
    "--password-file", type=click.Path(path_type=Path), help="File with the password; else it is made up and shown."
)


@admin.command(name="list")
@_DATA_DIR
@_DATABASE_URL
@click.option("--json", is_flag=True, help="For programs.")
def list_admins(data_dir: Path | None, **given: object) -> None:
    """Show all admins."""
    hand_over(["admin", "list"], data_dir, *_options(**given))


@admin.command()
@_DATA_DIR
@_DATABASE_URL
@_PASSWORD
@click.option("--role", help="owner, operator, support or read-only. [owner]")
@click.argument("name")
def create(data_dir: Path | None, name: str, **given: object) -> None:
    """Make an admin."""
    hand_over(["admin", "create"], data_dir, *_options(**given), "--", name)


@admin.command(name="reset-password")
@_DATA_DIR
@_DATABASE_URL
@_PASSWORD
@click.option("--remove-totp", is_flag=True, help="Ask for no code any more.")
@click.argument("name")
def reset_password(data_dir: Path | None, name: str, **given: object) -> None:
    """Give an admin a new password, enable it, and end its sessions."""
    hand_over(["admin", "reset-password"], data_dir, *_options(**given), "--", name)


@click.command()
@_DATA_DIR
@_DATABASE_URL
@_PASSPHRASE
@click.option("--force", is_flag=True, help="Put what is in the directory aside; nothing may run there.")
@click.argument("file", type=click.Path(path_type=Path))
def restore(data_dir: Path | None, file: Path, **given: object) -> None:
    """Put a backup back into an empty directory; then start `xfleet up` there."""
    hand_over(["restore"], data_dir, *_options(**given), "--", file)
