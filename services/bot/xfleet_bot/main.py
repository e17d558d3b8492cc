"""The command line of the bot."""

import logging
from pathlib import Path
from typing import Any

import click

from xfleet_bot.app import run_bot
from xfleet_bot.settings import BotSettings
from xfleet_runtime.known_settings import all_settings
from xfleet_runtime.log import configure_logging
from xfleet_runtime.main import run_async, run_main, run_until_signal
from xfleet_runtime.settings import load_settings


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="xfleet", prog_name="xfleet-bot")
def cli() -> None:
    """The Telegram bot of an xfleet panel."""


@cli.command()
@click.option("--credentials-file", type=click.Path(path_type=Path), required=True, help="The bot's bus credentials.")
@click.option("--token-file", type=click.Path(path_type=Path), help="Holds the bot token; else XFLEET_BOT_TOKEN.")
@click.option("--api-base", "bot_api_base", metavar="URL", help="Base address of the Bot API. [Telegram's own]")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[info]")
def run(**given: Any) -> None:
    """Answer people on Telegram until SIGINT or SIGTERM."""
    settings = load_settings(BotSettings, given, others=all_settings())
    configure_logging("bot", level=settings.log_level)
    logging.getLogger("aiogram.event").setLevel(logging.WARNING)
    run_async(_serve(settings))


async def _serve(settings: BotSettings) -> None:
    await run_until_signal(lambda: run_bot(settings))


def main() -> None:
    """The console script."""
    run_main(cli)


if __name__ == "__main__":
    main()
