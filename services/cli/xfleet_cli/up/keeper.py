"""Keeps a part running: what dies is started again, after a delay that grows while it keeps dying."""

import asyncio
import signal
from collections.abc import Callable

from xfleet_cli.up.parts import Part, last_line
from xfleet_cli.up.record import RunRecord
from xfleet_runtime.backoff import Backoff
from xfleet_runtime.errors import Unusable
from xfleet_runtime.main import EXIT_UNUSABLE

HEALTHY_AFTER_S = 20.0


class Keeper:
    """One part, its record and its restarts."""

    def __init__(self, part: Part, record: RunRecord, say: Callable[[str], None]) -> None:
        self.part = part
        self._record = record
        self._say = say
        self._backoff = Backoff(first_s=0.3, most_s=30.0)

    async def start(self) -> None:
        """Starts the part. Raises `Unusable` when it cannot start."""
        await self.part.start()
        self._record.note(self.part.name, self.part.pid)

    async def keep(self) -> None:
        """Starts the part again whenever it ends, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            code = await self.part.wait()
            self._record.forget(self.part.name)
            if loop.time() - started > HEALTHY_AFTER_S:
                self._backoff.reset()
            await self._start_again(describe_end(self.part, code))

    async def stop(self, hurry: asyncio.Event) -> None:
        """Ends the part for good."""
        await self.part.stop(hurry)
        self._record.forget(self.part.name)

    async def _start_again(self, reason: str) -> None:
        while True:
            delay_s = self._backoff.next_s()
            self._say(f"{self.part.name} {reason}; starting it again in {delay_s:.1f} s.")
            await asyncio.sleep(delay_s)
            try:
                await self.start()
            except Unusable as error:
                reason = f"cannot start: {error}"
            else:
                return


def describe_end(part: Part, code: int) -> str:
    """How the part ended, and why where it said so."""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    if code == EXIT_UNUSABLE:
        return f"refused to start: {said(part)}"
    return f"ended with exit code {code} (log: {part.log_file})"


def said(part: Part) -> str:
    """The last line a part wrote, without our own prefix."""
    return last_line(part.log_file).removeprefix("xfleet: ")
