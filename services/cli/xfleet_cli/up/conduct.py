"""Starts all parts in their order, keeps them running, and stops them in order."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from xfleet_cli.up.announce import Announcement, lines_of, say
from xfleet_cli.up.keeper import Keeper, describe_end, said
from xfleet_cli.up.layout import Layout, broker_host
from xfleet_cli.up.logs import keep_bounded
from xfleet_cli.up.parts import Part
from xfleet_cli.up.plan import LOOPBACK, Plan, make_plan
from xfleet_cli.up.prepare import Prepared, prepare
from xfleet_cli.up.probe import panel_answers
from xfleet_cli.up.record import RunRecord, end_leftovers
from xfleet_cli.up.services import agent_of, bot_of, broker_of, child_environment, controller_of, init_arguments
from xfleet_cli.up.settings import UpSettings, check, data_directory
from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import lock_exclusively, writable_directory, write_private
from xfleet_runtime.main import EXIT_UNUSABLE

READY_TIMEOUT_S = 90.0
_POLL_S = 0.1
LISTEN_POLL_S = 1.0
_ADMIN_PASSWORD = "XFLEET_ADMIN_PASSWORD"  # noqa: S105  a variable's name


class Ready(msgspec.Struct, frozen=True):
    """The ready file."""

    panel_url: str
    broker_url: str
    pid: int


async def conduct(settings: UpSettings) -> None:
    """Runs everything until a signal asks for the end; a second signal hurries. Raises `Unusable`."""
    check(settings)
    layout = Layout(writable_directory(data_directory(settings)))
    if settings.ready_file is not None:
        settings.ready_file.unlink(missing_ok=True)
    lock = lock_exclusively(layout.lock, owner="xfleet up")
    try:
        with signals() as (stop, hurry):
            await _conduct_locked(settings, layout, stop, hurry)
    finally:
        os.close(lock)


async def _conduct_locked(settings: UpSettings, layout: Layout, stop: asyncio.Event, hurry: asyncio.Event) -> None:
    running = _Running(settings, layout)
    serving, asked = asyncio.ensure_future(running.serve()), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({serving, asked}, return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            say("Stopping. Press Ctrl-C again to hurry.")
    finally:
        asked.cancel()
        serving.cancel()
        outcome = (await asyncio.gather(serving, return_exceptions=True))[0]
        await running.stop(hurry)
    if isinstance(outcome, Exception):
        raise outcome
    say("Stopped.")


class _Running:
    """The parts of this start, in the order in which they were started."""

    def __init__(self, settings: UpSettings, layout: Layout) -> None:
        self._settings = settings
        self._layout = layout
        self._record = RunRecord(layout.run)
        self._keepers: dict[str, Keeper] = {}

    async def serve(self) -> None:
        """Brings everything up and keeps it running, for ever. Raises `Unusable`."""
        await end_leftovers(self._layout.run, say)
        plan = make_plan(self._settings, self._layout)
        say(f"{'Resuming' if plan.resumed else 'Setting up'} {self._layout.root} …")
        prepared = await prepare(
            init_arguments(plan),
            environment=child_environment("controller", plan),
            log_file=self._layout.logs / "init.log",
        )
        try:
            async with asyncio.TaskGroup() as group:
                await self._bring_up(plan, prepared, group)
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _bring_up(self, plan: Plan, prepared: Prepared, group: asyncio.TaskGroup) -> None:
        """An agent that has an identity serves before anybody else is there; a new one needs somebody to enroll it."""
        agent, controller, bot = agent_of(plan, prepared), controller_of(plan), bot_of(plan, prepared)
        services = [part.log_file for part in (controller, agent, bot) if part is not None]
        group.create_task(keep_bounded(services))
        enrolled = plan.layout.agent_identity.exists()
        early, late = ([agent], []) if enrolled else ([], [agent])
        for part in (broker_of(plan), *early):
            group.create_task((await self._start(part)).keep())
        keeper = await self._start(controller)
        await _wait_ready(controller, plan)
        group.create_task(keeper.keep())
        group.create_task(self._open_broker(plan))
        for part in (*late, *([bot] if bot else [])):
            group.create_task((await self._start(part)).keep())
        _tell_ready(plan, prepared)

    async def _open_broker(self, plan: Plan) -> None:
        """Has the broker start again when the panel wants it to listen to machines elsewhere; its keeper does it."""
        while plan.broker_host == LOOPBACK and broker_host(plan.layout) is None:  # noqa: ASYNC110  a file has no event
            await asyncio.sleep(LISTEN_POLL_S)
        if plan.broker_host == LOOPBACK:
            say(f"Opening the broker's port {plan.broker_port} to machines elsewhere, as the panel was told.")
            await self._keepers["broker"].part.stop(asyncio.Event())

    async def stop(self, hurry: asyncio.Event) -> None:
        """Agent first, while controller and broker can still take its last bytes; the broker last."""
        if self._settings.ready_file is not None:
            self._settings.ready_file.unlink(missing_ok=True)
        for name in ("agent", "bot", "controller", "broker"):
            if name in self._keepers:
                await self._keepers[name].stop(hurry)
        if self._keepers:
            self._record.clear()

    async def _start(self, part: Part) -> Keeper:
        keeper = self._keepers[part.name] = Keeper(part, self._record, say)
        await keeper.start()
        return keeper


async def _wait_ready(controller: Part, plan: Plan) -> None:
    """Returns when the panel answers. Raises `Unusable` when the controller ends before, or takes too long."""
    ended = asyncio.ensure_future(controller.wait())
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            path, tls = f"{plan.base_path}/readyz", plan.certificate is not None
            while not ended.done() and not await panel_answers(plan.panel_port, path, tls=tls):
                await asyncio.wait({ended}, timeout=_POLL_S)
    except TimeoutError:
        raise Unusable(f"The panel did not answer in time. The controller's log: {controller.log_file}") from None
    finally:
        ended.cancel()
    if ended.done() and not ended.cancelled():
        code = ended.result()
        raise Unusable(
            said(controller) if code == EXIT_UNUSABLE else f"The controller {describe_end(controller, code)}"
        )


def _tell_ready(plan: Plan, prepared: Prepared) -> None:
    certificate = plan.certificate
    facts = Announcement(
        data_dir=str(plan.layout.root),
        resumed=not prepared.new,
        panel_url=plan.panel_url,
        panel_port=plan.panel_port,
        broker_port=plan.broker_port,
        public=plan.settings.public,
        admin_created=prepared.admin_created,
        admin_password=prepared.admin_password,
        password_given=bool(os.environ.get(_ADMIN_PASSWORD)),
        fingerprint=certificate.fingerprint if certificate else "",
        own_certificate=bool(certificate and certificate.own),
        bot=bool(plan.settings.bot_token),
    )
    for line in lines_of(facts):
        say(line)
    if plan.settings.ready_file is not None:
        _write_ready(plan.settings.ready_file, Ready(plan.panel_url, plan.broker_url, os.getpid()))


def _write_ready(path: Path, ready: Ready) -> None:
    try:
        write_private(path.expanduser().absolute(), msgspec.json.encode(ready))
    except OSError as error:
        raise Unusable(f"Cannot write the ready file {path}: {error.strerror}. Choose another place.") from error


@contextmanager
def signals() -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """Two events: set by the first and by the second signal that asks for the end."""
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    handled = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        handled.append(signal.SIGHUP)

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    for each in handled:
        loop.add_signal_handler(each, on_signal)
    try:
        yield stop, hurry
    finally:
        for each in handled:
            loop.remove_signal_handler(each)
