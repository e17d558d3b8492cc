"""`xfleet tail`: what happens in the fleet, as it happens."""

import asyncio
from pathlib import Path

import click
import msgspec

from xfleet_cli.operator.access import Desk
from xfleet_cli.operator.common import as_json, on_desk, with_credentials
from xfleet_cli.operator.show import moment, plain
from xfleet_contracts import codec, subjects
from xfleet_contracts.errors import Refusal
from xfleet_contracts.events import FleetEvent
from xfleet_contracts.heartbeat import Heartbeat
from xfleet_runtime.broker import Incoming
from xfleet_runtime.clock import SystemClock


@click.command()
@with_credentials
@as_json
@click.option("--heartbeats", is_flag=True, help="Also the heartbeats of the servers.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many.")
def tail(path: Path, *, json_too: bool, heartbeats: bool, count: int | None) -> None:
    """Follow what happens, until Ctrl-C."""

    async def work(desk: Desk) -> None:
        printed = 0
        enough = asyncio.Event()

        async def on_message(message: Incoming) -> None:
            nonlocal printed
            if count is not None and printed >= count:
                return
            try:
                line = _json_of(message) if json_too else _line_of(message)
            except Refusal as refusal:
                line = f"{plain(message.subject)}: {plain(refusal.text)}"
            click.echo(line)
            printed += 1
            if printed == count:
                enough.set()

        await desk.link.subscribe(subjects.ALL_EVENTS, on_message)
        if heartbeats:
            await desk.link.subscribe(subjects.ALL_HEARTBEATS, on_message)
        click.echo("Listening …", err=True)
        await enough.wait()

    on_desk(path, work)


def _json_of(message: Incoming) -> str:
    return msgspec.json.encode({"subject": message.subject, "body": codec.decode(message.payload, dict)}).decode()


def _line_of(message: Incoming) -> str:
    if message.subject.endswith(".hb"):
        beat = codec.decode(message.payload, Heartbeat)
        words = f"{beat.xray.status}, revision {beat.applied_revision}, {beat.online_count} online"
        return f"{moment(SystemClock().now_ms())}  {plain(subjects.sid_of(message.subject))}  heartbeat  {plain(words)}"
    event = codec.decode(message.payload, FleetEvent)
    details = ", ".join(f"{plain(name)}={plain(value)}" for name, value in event.details.items())
    about = " ".join(plain(part) for part in (event.server, event.subject) if part)
    return "  ".join(part for part in (moment(event.at_ms), plain(event.type), about, details) if part)
