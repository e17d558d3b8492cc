"""The command line of `xfleet up`."""

from pathlib import Path
from typing import Any

import click

from xfleet_cli.up.conduct import conduct
from xfleet_cli.up.settings import DECIDED_HERE, UpSettings
from xfleet_runtime.known_settings import all_settings
from xfleet_runtime.log import configure_logging
from xfleet_runtime.main import run_async
from xfleet_runtime.settings import load_settings


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where everything lives; made when missing.")
@click.option("--panel-port", type=int, help="Port of the panel; 0 takes a free one. [2053, or the last one]")
@click.option("--broker-port", type=int, help="Port of the broker; 0 takes a free one. [4222, or the last one]")
@click.option("--broker-websocket-port", type=int, help="Port on which the broker also speaks wss://. [none]")
@click.option("--ready-file", type=click.Path(path_type=Path), help="Written when the panel answers (JSON).")
@click.option("--public", is_flag=True, default=None, help="Listen on all addresses, with TLS and a random base path.")
@click.option(
    "--behind-proxy", metavar="CIDR", help="Believe the forwarding headers of a TLS proxy at these addresses."
)
@click.option("--tls-cert", type=click.Path(path_type=Path), help="The panel's certificate chain (PEM).")
@click.option("--tls-key", type=click.Path(path_type=Path), help="The private key of --tls-cert (PEM).")
@click.option("--bot-token", metavar="TOKEN", help="Telegram bot token; better given as XFLEET_BOT_TOKEN.")
@click.option("--bot-api-base", metavar="URL", help="Base address of the Bot API. [Telegram's own]")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Of all parts. [info]")
def up(**given: Any) -> None:
    """Run a whole fleet of one on this machine: broker, panel, agent with Xray, and the bot if it has a token.

    State lives in one data directory; a second start resumes it. Every option is also a variable such as
    XFLEET_PANEL_PORT. The first password of the admin `admin` is XFLEET_ADMIN_PASSWORD, else it is made up and shown.
    """
    settings = load_settings(UpSettings, given, others=all_settings() - DECIDED_HERE)
    configure_logging("up", level="warning" if settings.log_level == "info" else settings.log_level)
    run_async(conduct(settings))
