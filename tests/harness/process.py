"""Our console scripts as children of a test: output kept, ended for sure."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path


def script(name: str) -> str:
    """The path of one of our console scripts in this environment."""
    return str(Path(sys.executable).parent / name)


@dataclass
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def error_lines(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.strip()]


async def run(command: Sequence[str], *, environment: Mapping[str, str] | None = None, within_s: float = 60) -> Outcome:
    """Runs a command to its end."""
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    try:
        async with asyncio.timeout(within_s):
            out, err = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode is not None
    return Outcome(child.returncode, out.decode(), err.decode())


@dataclass
class Running:
    """A command that runs, with its output in a file."""

    child: asyncio.subprocess.Process
    log: Path

    @property
    def pid(self) -> int:
        return self.child.pid

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    async def end(self, how: signal.Signals = signal.SIGTERM, *, within_s: float = 60) -> int:
        """Sends the signal and waits; its exit code."""
        if self.child.returncode is None:
            self.child.send_signal(how)
        async with asyncio.timeout(within_s):
            return await self.child.wait()


@asynccontextmanager
async def running(
    command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Running]:
    """The command, running until the end of the block; then ended in order, or killed."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        child = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    self = Running(child, log)
    try:
        yield self
    finally:
        try:
            await self.end()
        except TimeoutError:
            child.kill()
            await child.wait()
