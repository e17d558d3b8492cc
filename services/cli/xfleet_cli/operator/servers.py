"""`xfleet diff`, `drain`, `mode` and `server …`: one server, what it should run, and whether it takes part."""

from pathlib import Path

import click

from xfleet_cli.operator.access import Desk
from xfleet_cli.operator.common import as_json, on_desk, with_credentials
from xfleet_cli.operator.show import moment, plain, say_json
from xfleet_contracts import control
from xfleet_contracts.control import Done, EnrollOrder, JoinLine, ModeRequest, ServerDiff, ServerRequest

MARKS = {"add": "+", "change": "~", "remove": "-", "degraded": "!", "stray": "?"}
COLOURS = {"add": "green", "change": "yellow", "remove": "red", "degraded": "red", "stray": "magenta"}


@click.command()
@click.argument("server")
@with_credentials
@as_json
def diff(path: Path, server: str, *, json_too: bool) -> None:
    """Show what a server should run and does not."""

    async def work(desk: Desk) -> None:
        found = await desk.ask(control.DIFF, ServerRequest(token=desk.token, server=server), ServerDiff)
        if json_too:
            say_json(found)
            return
        point = f"wanted revision {found.desired_revision}, held {found.wanted_revision}, running"
        click.echo(f"{plain(found.server)}: {plain(found.status)}, {point} {found.applied_revision}")
        for line in found.lines:
            text = f"{MARKS[line.change]} {line.kind} {plain(line.name or line.id)}  {plain(line.text)}".rstrip()
            click.secho(text, fg=COLOURS[line.change])
        if found.more_count:
            click.echo(f"… and {found.more_count} more")
        if not found.lines:
            click.echo("Nothing is different.")

    on_desk(path, work)


@click.command()
@click.argument("server")
@click.option("--undo", is_flag=True, help="Take it back into service.")
@with_credentials
def drain(path: Path, server: str, *, undo: bool) -> None:
    """Take a server out of new subscriptions; whoever is on it stays."""
    _set_mode(path, server, "active" if undo else "drain")


@click.command()
@click.argument("server")
@click.argument("mode", type=click.Choice(["active", "drain", "maintenance"]))
@with_credentials
def mode(path: Path, server: str, mode: str) -> None:
    """Set how a server takes part."""
    _set_mode(path, server, mode)


def _set_mode(path: Path, server: str, mode: str) -> None:
    async def work(desk: Desk) -> None:
        request = ModeRequest(token=desk.token, server=server, mode=mode)  # type: ignore[arg-type]  click checked it
        _say(await desk.ask(control.MODE, request, Done))

    on_desk(path, work)


@click.group()
def server() -> None:
    """Add, join and revoke servers."""


@server.command("add")
@click.argument("name")
@with_credentials
@as_json
def add(path: Path, name: str, *, json_too: bool) -> None:
    """Add a server and print the line that joins its machine."""
    _enroll(path, EnrollOrder(name=name), json_too=json_too)


@server.command("join")
@click.argument("server")
@with_credentials
@as_json
def join(path: Path, server: str, *, json_too: bool) -> None:
    """Print a new line for a server: for its machine, or for one that replaces it."""
    _enroll(path, EnrollOrder(server=server), json_too=json_too)


@server.command("revoke")
@click.argument("server")
@click.option("--reason", default="revoked by an operator", show_default=True)
@click.confirmation_option(prompt="Its agent is cut off until it joins again. Go on?")
@with_credentials
def revoke(path: Path, server: str, *, reason: str) -> None:
    """Revoke every key of a server; its Xray serves on, its agent is cut off at once."""

    async def work(desk: Desk) -> None:
        request = ServerRequest(token=desk.token, server=server, reason=reason)
        _say(await desk.ask(control.REVOKE, request, Done))

    on_desk(path, work)


def _enroll(path: Path, order: EnrollOrder, *, json_too: bool) -> None:
    async def work(desk: Desk) -> None:
        request = EnrollOrder(token=desk.token, name=order.name, server=order.server)
        made = await desk.ask(control.ENROLL, request, JoinLine)
        if json_too:
            say_json(made)
            return
        until = moment(made.expires_at_ms)
        click.echo(f"Paste this as root on the machine that becomes {plain(made.server)}, until {until}:", err=True)
        click.echo(plain(made.line))

    on_desk(path, work)


def _say(done: Done) -> None:
    click.echo(f"{plain(done.server)}: {plain(done.text)}")
