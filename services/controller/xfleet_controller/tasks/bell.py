"""Rings when tasks come to an end, so that whoever waits does not have to look."""

import asyncio


class TaskBell:
    """One event per waiting round; cheap to ring when nobody waits."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wakes all who wait now."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout_s: float) -> None:
        """Returns at the next ring, or after the time."""
        event = self._event
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return
