"""The command `xfleet-controller`."""

from pathlib import Path
from typing import Any

import click
import msgspec

from xfleet_controller.backups.commands import back_up, options_of_backup, options_of_restore, put_back, tell_made
from xfleet_controller.config import ControllerSettings
from xfleet_controller.init import InitOrder, initialize
from xfleet_controller.rescue.commands import admin_group
from xfleet_runtime.clock import SystemClock
from xfleet_runtime.known_settings import all_settings
from xfleet_runtime.log import configure_logging
from xfleet_runtime.main import run_async, run_main, run_until_signal
from xfleet_runtime.settings import load_settings

_PATH = click.Path(path_type=Path)


@click.group()
def cli() -> None:
    """The controller of an xfleet: wanted state, accounts, the traffic ledger, panel and API."""


def _common(command: Any) -> Any:
    for option in (
        click.option("--data-dir", type=_PATH, required=True, help="Where keys, database and broker files lie."),
        click.option("--database-url", help="SQLAlchemy URL; default: SQLite in the data directory."),
        click.option("--base-path", help="Prefix of every URL."),
        click.option("--config", type=_PATH, help="A TOML file with settings."),
        click.option("--log-level", help="debug, info, warning or error."),
    ):
        command = option(command)
    return command


@cli.command()
@_common
@click.option("--local-agent", is_flag=True, help="Make the server `local` and a token for its agent.")
@click.option("--broker-host", default="127.0.0.1", show_default=True, help="Address the broker listens on.")
@click.option("--broker-port", default=4222, show_default=True, help="Port of the broker.")
@click.option("--broker-websocket-port", default=0, help="Port on which the broker also speaks wss://; 0 for none.")
@click.option("--broker-url", "broker_urls", multiple=True, help="Address agents use, when it is another one.")
def init(
    config: Path | None,
    broker_urls: tuple[str, ...],
    *,
    local_agent: bool,
    broker_host: str,
    broker_port: int,
    broker_websocket_port: int,
    **given: Any,
) -> None:
    """Make what a new installation needs; answer with one line of JSON."""
    settings = _settings(given, config)
    order = InitOrder(
        local_agent=local_agent,
        broker_host=broker_host,
        broker_port=broker_port,
        broker_websocket_port=broker_websocket_port,
        broker_urls=broker_urls,
    )

    async def answer() -> None:
        made = await initialize(settings, order)
        click.echo(msgspec.json.encode(made).decode())

    run_async(answer())


@cli.command("cli-credentials")
@_common
@click.option("--admin", default="", help="Whose rights it has. [the first owner]")
@click.option("--output", type=_PATH, required=True, help="The file; made with mode 0600.")
@click.option("--broker-url", "broker_urls", multiple=True, help="Address of the broker, as seen from there.")
def cli_credentials(config: Path | None, admin: str, output: Path, broker_urls: tuple[str, ...], **given: Any) -> None:
    """Make credentials for `xfleet ps` and its siblings, here or on another machine."""
    settings = _settings(given, config)
    from xfleet_controller.init import make_cli_credentials  # noqa: PLC0415  as below

    async def answer() -> None:
        path = await make_cli_credentials(settings, output.absolute(), admin, broker_urls)
        click.echo(f"Written: {path}. Keep it secret: it acts for its admin.")

    run_async(answer())


@cli.command()
@_common
@click.option("--listen", help="Address of panel and API.")
@click.option("--port", type=int, help="Port of panel and API.")
@click.option("--public-url", help="Base URL that subscriptions carry.")
@click.option("--tls-cert", type=_PATH, help="Certificate chain of the panel.")
@click.option("--tls-key", type=_PATH, help="Its key.")
@click.option("--behind-proxy", metavar="CIDR", help="Reverse proxies whose forwarded headers are believed.")
@click.option("--broker-url", help="tls://HOST:PORT, comma-separated for several.")
@click.option("--broker-listen-file", type=_PATH, help="Lets the panel open the broker of `xfleet up` to the world.")
def run(config: Path | None, **given: Any) -> None:
    """Run the controller until it is told to stop."""
    settings = _settings(given, config)
    from xfleet_controller.serve import serve  # noqa: PLC0415  `init` starts a second sooner without the web's parts

    async def until_signal() -> None:
        await run_until_signal(lambda: serve(settings))

    run_async(until_signal())


@cli.command()
@_common
@options_of_backup
def backup(config: Path | None, output: Path | None, **given: Any) -> None:
    """Make one encrypted file with the database and all keys, also while everything runs."""
    settings = _settings(given, config, quiet=True)

    async def make() -> None:
        tell_made(await back_up(settings, output))

    run_async(make())


@cli.command()
@_common
@options_of_restore
def restore(config: Path | None, file: Path, *, force: bool, **given: Any) -> None:
    """Put a backup back into an empty directory."""
    settings = _settings(given, config, quiet=True)
    run_async(put_back(settings, file, force=force))


@cli.command()
@click.option("--data-dir", type=_PATH, required=True, help="Where keys, database and broker files lie.")
@click.option("--python", "pythons", default="3.11,3.12,3.13", show_default=True, help="Versions, comma-separated.")
@click.option("--arch", "machines", default="amd64,arm64", show_default=True, help="Machines, comma-separated.")
def wheelhouse(data_dir: Path, pythons: str, machines: str) -> None:
    """Fetch what agents on other kinds of machines need, for servers that reach no package index.

    Without it the panel hands on what it has itself: its own version of Python, on its own kind of machine.
    """
    from xfleet_controller.install.library import Library  # noqa: PLC0415  as above
    from xfleet_controller.install.wheelhouse import fill  # noqa: PLC0415  as above

    place = Library(data_dir.absolute() / "install").wheelhouse
    fill(place, _words(pythons), _words(machines), click.echo)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _settings(given: dict[str, Any], config: Path | None, *, quiet: bool = False) -> ControllerSettings:
    settings = load_settings(ControllerSettings, given, file=config, others=all_settings())
    configure_logging("controller", level="error" if quiet and settings.log_level == "info" else settings.log_level)
    return msgspec.structs.replace(settings, data_dir=settings.data_dir.absolute())


@cli.command()
@_common
@click.option("--broker-url", help="tls://HOST:PORT, comma-separated for several.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def doctor(click_context: click.Context, config: Path | None, *, as_json: bool, **given: Any) -> None:
    """Look at everything and say what is wrong; exit code 1 when something failed."""
    settings = _settings(given, config, quiet=True)
    from xfleet_controller.doctor.examination import examine  # noqa: PLC0415  the other commands need none of it
    from xfleet_controller.doctor.findings import exit_code, lines_of  # noqa: PLC0415  as above

    async def look() -> None:
        findings = await examine(settings, SystemClock())
        click.echo(msgspec.json.encode(findings).decode() if as_json else "\n".join(lines_of(findings)))
        click_context.obj = exit_code(findings)

    run_async(look())
    click_context.exit(click_context.obj)


cli.add_command(admin_group(_common, _settings))


def main() -> None:
    """The console script."""
    run_main(lambda: cli(standalone_mode=True))
