"""Wakes live pages when something they may show has changed."""

import asyncio


class Pulse:
    """One event for all who look; costs nothing while nobody does."""

    def __init__(self) -> None:
        self.closed = False
        """True once the controller is about to stop: streams end by themselves."""
        self.rings_count = 0
        """Grows with every ring: who remembers it misses none."""
        self._event = asyncio.Event()

    def ring(self, *_about: object) -> None:
        """Something changed. Takes and ignores arguments, so that it fits wherever callbacks are collected."""
        self.rings_count += 1
        self._event.set()
        self._event = asyncio.Event()

    def close(self) -> None:
        """Ends all streams."""
        self.closed = True
        self.ring()

    async def wait(self, seen_count: int, timeout_s: float) -> None:
        """Returns once there were more than `seen_count` rings, or after the time."""
        event = self._event
        if self.rings_count != seen_count:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return
