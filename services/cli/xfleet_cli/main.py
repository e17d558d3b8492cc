"""The command `xfleet`: everything on this machine, and the operator's verbs."""

import click

from xfleet_cli.care.commands import admin, backup, doctor, restore
from xfleet_cli.care.service import service
from xfleet_cli.up.command import up
from xfleet_runtime.main import run_main


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="xfleet", prog_name="xfleet")
def cli() -> None:
    """A panel for fleets of Xray VPN servers."""


for command in (up, backup, restore, admin, doctor, service):
    cli.add_command(command)


def main() -> None:
    """The console script."""
    run_main(cli)


if __name__ == "__main__":
    main()
