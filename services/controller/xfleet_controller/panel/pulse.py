"""Wakes live pages when something they may show has changed."""

import asyncio


class Pulse:
    """One event for all who look; costs nothing while nobody does."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self, *_about: object) -> None:
        """Something changed. Takes and ignores arguments, so that it fits wherever callbacks are collected."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout_s: float) -> bool:
        """Whether something changed within the time."""
        event = self._event
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return False
        return True
