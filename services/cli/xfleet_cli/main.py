"""The command `xfleet`: everything on this machine, and the operator's verbs."""

import click

from xfleet_cli.care.commands import admin, backup, doctor, restore
from xfleet_cli.care.service import service
from xfleet_cli.certs import certs
from xfleet_cli.demo.command import demo
from xfleet_cli.operator.nats_context import nats_context
from xfleet_cli.operator.ps import ps
from xfleet_cli.operator.servers import diff, drain, mode, server
from xfleet_cli.operator.tail import tail
from xfleet_cli.operator.tasks import order, task
from xfleet_cli.up.command import up
from xfleet_runtime.main import run_main


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="xfleet", prog_name="xfleet")
def cli() -> None:
    """A panel for fleets of Xray VPN servers."""


OPERATOR = (ps, tail, diff, drain, mode, task, order, server, nats_context, certs)
CARE = (backup, restore, admin, doctor, service)
for command in (up, demo, *OPERATOR, *CARE):
    cli.add_command(command)


def main() -> None:
    """The console script."""
    run_main(cli)


if __name__ == "__main__":
    main()
