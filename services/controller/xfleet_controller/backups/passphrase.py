"""Where a command or the schedule gets the passphrase from."""

import sys
from pathlib import Path

import click

from xfleet_controller.config import ControllerSettings
from xfleet_runtime.errors import Unusable


def configured(settings: ControllerSettings) -> str:
    """The passphrase of file or environment; empty when there is none. Raises `Unusable` for an unreadable file."""
    if settings.backup_passphrase_file is not None:
        return read_file(settings.backup_passphrase_file)
    return settings.backup_passphrase


def read_file(path: Path) -> str:
    """The first line of a file. Raises `Unusable`."""
    try:
        with path.open(encoding="utf-8") as file:
            line = file.readline().rstrip("\r\n")
    except OSError as error:
        raise Unusable(f"Cannot read the passphrase file {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise Unusable(f"The passphrase file {path} is not text.") from error
    if not line:
        raise Unusable(f"The passphrase file {path} is empty.")
    return line


def ask_or_configured(settings: ControllerSettings, *, twice: bool) -> str:
    """As `configured`, else asked for on a terminal. Raises `Unusable` where there is nobody to ask."""
    found = configured(settings)
    if found:
        return found
    if not sys.stdin.isatty():
        raise Unusable("Give the passphrase with --passphrase-file FILE or XFLEET_BACKUP_PASSPHRASE.")
    return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=twice, err=True))
