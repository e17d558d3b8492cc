"""`xfleet ps`: the servers at a glance, from the controller, or from their own heartbeats while it is away."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

import click

from xfleet_cli.operator.access import ControllerAway, Desk
from xfleet_cli.operator.common import as_json, on_desk, with_credentials
from xfleet_cli.operator.show import moment, rate, say_json, table
from xfleet_contracts import codec, control, subjects
from xfleet_contracts.control import ActorRequest, ServerLine, ServerLines
from xfleet_contracts.errors import Refusal
from xfleet_contracts.heartbeat import HEARTBEAT_INTERVAL_S, Heartbeat
from xfleet_runtime.broker import Incoming
from xfleet_runtime.clock import SystemClock

HEAD = ("server", "status", "mode", "agent", "xray", "revision", "online", "up", "down", "cpu", "mem", "last seen")
LISTEN_S = HEARTBEAT_INTERVAL_S + 2.0
WATCH_EVERY_S = 2.0
ASK_TIMEOUT_S = 3.0


@click.command()
@with_credentials
@as_json
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--listen-s", default=LISTEN_S, show_default=True, help="How long to listen while no controller answers.")
def ps(path: Path, *, json_too: bool, watch: bool, listen_s: float) -> None:
    """Show the servers: status, versions, revisions, who is online, rates."""

    async def work(desk: Desk) -> None:
        while True:
            try:
                asked = await desk.ask(
                    control.SERVERS, ActorRequest(token=desk.token), ServerLines, timeout_s=ASK_TIMEOUT_S
                )
                lines = asked.servers
            except ControllerAway:
                click.echo(f"No controller answers; listening to the servers for {listen_s:g} s …", err=True)
                lines = await _heard(desk, listen_s)
            _print(lines, json_too=json_too, clear=watch)
            if not watch:
                return
            await asyncio.sleep(WATCH_EVERY_S)

    on_desk(path, work)


async def _heard(desk: Desk, listen_s: float) -> tuple[ServerLine, ...]:
    """Everybody who beats within this time."""
    beats: dict[str, Heartbeat] = {}

    async def on_beat(message: Incoming) -> None:
        try:
            beats[subjects.sid_of(message.subject)] = codec.decode(message.payload, Heartbeat)
        except Refusal:
            return

    await desk.link.subscribe(subjects.ALL_HEARTBEATS, on_beat)
    await asyncio.sleep(listen_s)
    now_ms = SystemClock().now_ms()
    return tuple(line_of(sid, beat, now_ms) for sid, beat in sorted(beats.items()))


def line_of(sid: str, beat: Heartbeat, now_ms: int) -> ServerLine:
    """A server as its own heartbeat tells it."""
    host = beat.host
    memory = 100 * host.memory_used_bytes / host.memory_total_bytes if host.memory_total_bytes else 0.0
    return ServerLine(
        slug=sid,
        name=sid,
        status="online",
        mode="-",
        xray=f"{beat.xray.status} {beat.xray.version}".strip(),
        agent=beat.agent_version,
        cpu_percent=host.cpu_percent,
        memory_percent=memory,
        clients_online_count=beat.online_count,
        up_bytes_s=host.network_up_bytes_s,
        down_bytes_s=host.network_down_bytes_s,
        desired_revision=beat.wanted_revision,
        applied_revision=beat.applied_revision,
        degraded_count=beat.degraded_count,
        last_seen_at_ms=now_ms,
    )


def _print(lines: Iterable[ServerLine], *, json_too: bool, clear: bool) -> None:
    if json_too:
        for line in lines:
            say_json(line)
        return
    rows = [
        (
            line.slug,
            line.status if line.enabled else f"{line.status}, disabled",
            line.mode,
            line.agent or "-",
            line.xray or "-",
            _revision(line),
            line.clients_online_count,
            rate(line.up_bytes_s),
            rate(line.down_bytes_s),
            f"{line.cpu_percent:.0f}%",
            f"{line.memory_percent:.0f}%",
            moment(line.last_seen_at_ms),
        )
        for line in lines
    ]
    if clear:
        click.clear()
    if not rows:
        click.echo("No server is heard.", err=True)
        return
    click.echo("\n".join(table(HEAD, rows)))


def _revision(line: ServerLine) -> str:
    behind = "" if line.applied_revision == line.desired_revision else f" of {line.desired_revision}"
    degraded = f", {line.degraded_count} degraded" if line.degraded_count else ""
    return f"{line.applied_revision}{behind}{degraded}"
