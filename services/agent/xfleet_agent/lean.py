"""Keeps the agent small: libraries that others on this machine need, and it does not, stay unloaded."""

import ctypes
import sys
from contextlib import suppress

_M_ARENA_MAX = -8
_HIDDEN = ("rich", "aiohttp")
"""structlog and nats-py load these when they find them; the WebSocket that agents speak is our own."""


def stay_lean() -> None:
    """To be called before the rest of the agent is imported; costs nothing but what is not needed."""
    with suppress(OSError, AttributeError):  # another C library: only memory is at stake
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
    for name in _HIDDEN:
        if name not in sys.modules:
            sys.modules[name] = None  # type: ignore[assignment]  # an import then fails as if it were absent


def give_back_memory() -> None:
    """Returns what a large change left behind to the system."""
    with suppress(OSError, AttributeError):  # as above
        ctypes.CDLL(None).malloc_trim(0)
