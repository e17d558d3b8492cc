"""Keeps the agent small: libraries that others on this machine need, and it does not, stay unloaded."""

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from xfleet_contracts.enrollment import AgentIdentity, Manifest

_M_ARENA_MAX = -8
_HIDDEN = ("rich", "aiohttp")
"""structlog and nats-py load these when they find them; nats-py needs aiohttp only for WebSockets."""


def stay_lean(state_dir: Path) -> None:
    """To be called before the rest of the agent is imported; costs nothing but what is not needed."""
    with suppress(OSError, AttributeError):  # another C library: only memory is at stake
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
    for name in _HIDDEN:
        if name not in sys.modules and not (name == "aiohttp" and _may_speak_websocket(state_dir)):
            sys.modules[name] = None  # type: ignore[assignment]  # an import then fails as if it were absent


def give_back_memory() -> None:
    """Returns what a large change left behind to the system."""
    with suppress(OSError, AttributeError):  # as above
        ctypes.CDLL(None).malloc_trim(0)


def _may_speak_websocket(state_dir: Path) -> bool:
    try:
        identity = msgspec.json.decode((state_dir / "identity.json").read_bytes(), type=AgentIdentity)
        manifest = msgspec.json.decode(identity.manifest.payload, type=Manifest)
    except (OSError, msgspec.DecodeError):
        return True
    return any(url.startswith("wss:") for url in manifest.broker_urls)
