"""The command line of `xfleet demo`."""

import asyncio
import os
import secrets
import shutil
import signal
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import click
import msgspec

from xfleet_cli.demo import world
from xfleet_cli.demo.panel import Panel
from xfleet_cli.demo.traffic import move_bytes, running_clients
from xfleet_cli.demo.world import Joining
from xfleet_cli.up.announce import say
from xfleet_cli.up.conduct import Ready, signals
from xfleet_cli.up.keeper import describe_end
from xfleet_cli.up.parts import Service
from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import private_directory, write_private
from xfleet_runtime.known_settings import environment_of
from xfleet_runtime.log import configure_logging
from xfleet_runtime.main import run_async

READY_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 60.0


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="Keep the demo here. [a temporary directory]")
@click.option("--keep", is_flag=True, help="Do not remove the temporary directory.")
@click.option("--panel-port", default=0, help="Port of the panel. [a free one]")
@click.option("--ready-file", type=click.Path(path_type=Path), help="Written when traffic flows (JSON).")
def demo(data_dir: Path | None, *, keep: bool, panel_port: int, ready_file: Path | None) -> None:
    """Run a fleet of three servers with live traffic on this machine, until Ctrl-C."""
    configure_logging("demo", level="error")
    root = data_dir.expanduser().absolute() if data_dir else Path(tempfile.mkdtemp(prefix="xfleet-demo-"))
    if data_dir and root.exists() and any(root.iterdir()):
        raise Unusable(f"{root} is not empty. A demo begins in an empty directory.")
    try:
        run_async(_run(private_directory(root), panel_port, ready_file))
    finally:
        if data_dir is None and not keep:
            shutil.rmtree(root, ignore_errors=True)


async def _run(root: Path, panel_port: int, ready_file: Path | None) -> None:
    with signals() as (stop, hurry):
        working, asked = (
            asyncio.ensure_future(_show(root, panel_port, ready_file, hurry)),
            asyncio.create_task(stop.wait()),
        )
        await asyncio.wait({working, asked}, return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            say("Stopping the demo …")
        asked.cancel()
        working.cancel()
        outcome = (await asyncio.gather(working, return_exceptions=True))[0]
    if isinstance(outcome, BaseExceptionGroup):
        raise outcome.exceptions[0]
    if isinstance(outcome, Exception):
        raise outcome
    say("The demo has ended.")


async def _show(root: Path, panel_port: int, ready_file: Path | None, hurry: asyncio.Event) -> None:
    """Everything, in order; undone in the other order when cancelled. Raises `Unusable`."""
    password = secrets.token_urlsafe(12)
    async with AsyncExitStack() as stack:
        up = _up(root, panel_port, password)
        stack.push_async_callback(up.stop, hurry)
        say("Starting a controller, a broker and three servers …")
        await up.start()
        ready = await _wait_ready(up, root / "ready.json")
        panel = Panel(ready.panel_url)
        await panel.sign_in(password)
        agents = [_agent(root, joining) for joining in await world.name_servers(panel)]
        for agent in agents:
            stack.push_async_callback(agent.stop, hurry)
            await agent.start()
        links = await _filled(panel)
        ports = await stack.enter_async_context(running_clients(links))
        _tell(ready, password, ready_file)
        async with asyncio.TaskGroup() as group:
            group.create_task(move_bytes(ports))
            for part in (up, *agents):
                group.create_task(_watch(part))


async def _filled(panel: Panel) -> list[list[str]]:
    try:
        return await world.fill(panel, await world.wait_online(panel))
    except TimeoutError:
        raise Unusable("The demo's servers did not come online within a minute.") from None


def _up(root: Path, panel_port: int, password: str) -> Service:
    arguments = (
        "up", "--data-dir", str(root / "fleet"), "--panel-port", str(panel_port), "--broker-port", "0",
        "--ready-file", str(root / "ready.json"),
    )  # fmt: skip
    environment = environment_of("up", os.environ) | {"XFLEET_ADMIN_PASSWORD": password}
    return Service(
        "",
        lambda: arguments,
        environment=environment,
        log_file=root / "up.log",
        stop_signal=signal.SIGINT,
        stop_timeout_s=STOP_TIMEOUT_S,
    )


def _agent(root: Path, joining: Joining) -> Service:
    state_dir = root / "agents" / joining.slug
    token_file = root / f"{joining.slug}.token"
    write_private(token_file, joining.token.encode())
    return Service(
        "agent",
        lambda: world.agent_arguments(state_dir, token_file),
        environment=environment_of("agent", os.environ),
        log_file=root / f"{joining.slug}.log",
        stop_signal=signal.SIGINT,
        stop_timeout_s=STOP_TIMEOUT_S / 2,
    )


async def _wait_ready(up: Service, file: Path) -> Ready:
    ended = asyncio.ensure_future(up.wait())
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            while not file.exists():
                await asyncio.wait({ended}, timeout=0.1)
                if ended.done():
                    raise Unusable(f"The demo's fleet {describe_end(up, ended.result())}")
    except TimeoutError:
        raise Unusable(f"The demo's fleet did not start in time. Its log: {up.log_file}") from None
    finally:
        ended.cancel()
    return msgspec.json.decode(file.read_bytes(), type=Ready)


async def _watch(part: Service) -> None:
    code = await part.wait()
    raise Unusable(f"A part of the demo {describe_end(part, code)}")


def _tell(ready: Ready, password: str, ready_file: Path | None) -> None:
    for line in (
        "",
        f"  Panel      {ready.panel_url}",
        "  Sign in    admin",
        f"  Password   {password}",
        f"  Servers    {', '.join(name for name, _, _ in world.PLACES)}, with {len(world.CLIENTS)} clients on each",
        "",
        "  Ctrl-C stops everything and removes it.",
        "",
    ):
        say(line)
    if ready_file is not None:
        write_private(ready_file.absolute(), msgspec.json.encode({"panel_url": ready.panel_url, "password": password}))
