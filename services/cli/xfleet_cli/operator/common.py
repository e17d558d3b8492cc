"""What all of the operator's verbs share: where the credentials are, and a desk to ask at."""

import functools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from xfleet_cli.operator.access import Desk, credentials_file, open_desk, read_access
from xfleet_cli.operator.show import carry_out
from xfleet_runtime.log import configure_logging

_PATH = click.Path(path_type=Path)


def with_credentials(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that say with which credentials; the command gets `path`."""

    @click.option("--data-dir", type=_PATH, help="Of the `xfleet up` on this machine.")
    @click.option("--credentials", type=_PATH, help="File with credentials. [XFLEET_CREDENTIALS]")
    @functools.wraps(command)
    def wrapped(*args: Any, data_dir: Path | None, credentials: Path | None, **more: Any) -> Any:
        configure_logging("cli", level="error")
        return command(*args, path=credentials_file(data_dir, credentials), **more)

    return wrapped


def on_desk(path: Path, work: Callable[[Desk], Coroutine[Any, Any, None]]) -> None:
    """Opens the desk, does the work, and says in one line what went wrong."""

    async def run() -> None:
        async with open_desk(read_access(path)) as desk:
            await work(desk)

    carry_out(run)


def as_json(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--json`."""
    return click.option("--json", "json_too", is_flag=True, help="One JSON object per line, for programs.")(command)
