"""The parts of a running fleet as children: each in its own session, with its own log file."""

import asyncio
import os
import shutil
import signal
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from xfleet_cli.up.logs import open_log
from xfleet_nats.process import BrokerProcess
from xfleet_runtime.errors import Unusable

_TAIL_BYTES = 8 * 1024


class Part(Protocol):
    """One process that `xfleet up` keeps running."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def log_file(self) -> Path:
        """Where it writes what it does."""
        ...

    @property
    def pid(self) -> int:
        """Its process number; 0 while it does not run."""
        ...

    async def start(self) -> None:
        """Starts it. Raises `Unusable` with the reason when it cannot start."""
        ...

    async def wait(self) -> int:
        """Its exit code, once it has ended; negative for a signal."""
        ...

    async def stop(self, hurry: asyncio.Event) -> None:
        """Ends it in order; by force when that takes too long or somebody is in a hurry."""
        ...


class Service:
    """One of our own console scripts."""

    def __init__(
        self,
        name: str,
        arguments: Callable[[], Sequence[str]],
        *,
        environment: Mapping[str, str],
        log_file: Path,
        stop_signal: signal.Signals = signal.SIGTERM,
        stop_timeout_s: float = 15.0,
    ) -> None:
        self.name = name
        self.log_file = log_file
        self._arguments = arguments
        self._environment = dict(environment)
        self._stop_signal = stop_signal
        self._stop_timeout_s = stop_timeout_s
        self._child: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Its process number; 0 while it does not run."""
        return self._child.pid if self._child is not None and self._child.returncode is None else 0

    async def start(self) -> None:
        """Starts it; returns at once."""
        log = open_log(self.log_file)
        try:
            self._child = await asyncio.create_subprocess_exec(
                script(f"xfleet-{self.name}" if self.name else "xfleet"),
                *self._arguments(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        finally:
            os.close(log)

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        return await self._child.wait() if self._child is not None else 0

    async def stop(self, hurry: asyncio.Event) -> None:
        """Sends its stop signal and waits; kills it after its time, or as soon as somebody is in a hurry."""
        child = self._child
        if child is None or child.returncode is not None:
            return
        child.send_signal(self._stop_signal)
        ended, hurried = asyncio.ensure_future(child.wait()), asyncio.ensure_future(hurry.wait())
        try:
            await asyncio.wait({ended, hurried}, timeout=self._stop_timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                child.kill()
            await ended
        finally:
            hurried.cancel()


class Broker:
    """The nats-server."""

    name = "broker"

    def __init__(self, process: BrokerProcess) -> None:
        self._process = process

    @property
    def log_file(self) -> Path:
        """nats-server's own log."""
        return self._process.settings.log_file

    @property
    def pid(self) -> int:
        """Its process number; 0 while it does not run."""
        return self._process.pid if self._process.running else 0

    async def start(self) -> None:
        """Returns when it accepts clients."""
        await self._process.start()

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        return await self._process.wait()

    async def stop(self, hurry: asyncio.Event) -> None:  # noqa: ARG002  it stops within a second
        """Ends it in order."""
        await self._process.stop()


def script(name: str) -> str:
    """The path of one of our console scripts. Raises `Unusable` when it is not installed."""
    places = (str(Path(sys.executable).parent), sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath))
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise Unusable(f"{name} is not installed. Install everything with: pip install 'xfleet[all]'")
    return found


def last_line(path: Path) -> str:
    """The last line of a log that says something; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
