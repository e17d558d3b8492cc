"""The side door: `/install/` alone, on the machine's outer addresses, where the panel itself listens on loopback only.

It tells nothing that is secret and takes nothing, so it needs no TLS: everything fetched is checked by its SHA-256.
It shows neither the panel nor its base path, and it is open only since an admin opened the broker to other machines.
"""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psutil
import uvicorn
from litestar.types import ASGIApp

from xfleet_controller.fleet import store
from xfleet_controller.patience import patient
from xfleet_controller.proxies import is_loopback
from xfleet_runtime.log import get_logger

if TYPE_CHECKING:
    from xfleet_controller.context import Context

_log = get_logger(__name__)
SETTING = "side_door"
AGAIN_S = 10.0
AT_ONCE = 200
PER_NETWORK = 32


class SideDoor:
    """Opened and closed by the admin's word, which is a setting."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self.open = False
        """Whether it is to be open."""
        self.ports: tuple[tuple[str, int], ...] = ()
        """Where it really listens."""

    def tell(self, *, opened: bool) -> None:
        """Says how it is to be."""
        self.open = opened
        self._changed.set()

    async def run(self, context: "Context", app: ASGIApp, port: int) -> None:
        """Serves whenever it is to be open, for ever."""
        async with context.database.read() as session:
            self.open = self.open or bool(await store.find_setting(session, SETTING))
        while True:
            self._changed.clear()
            listeners = _listeners(port) if self.open else []
            if listeners:
                await self._serve(app, listeners)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN_S if self.open else None):
                        await self._changed.wait()

    async def _serve(self, app: ASGIApp, listeners: list[socket.socket]) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        config = uvicorn.Config(
            app, loop="none", log_config=None, access_log=False, server_header=False, lifespan="off",
            http=patient(per_network=PER_NETWORK), ws="none",
            limit_concurrency=AT_ONCE, timeout_graceful_shutdown=1, proxy_headers=False,
        )  # fmt: skip
        server = _Server(config)
        serving = asyncio.ensure_future(server.serve(sockets=listeners))
        self.ports = tuple(each.getsockname()[:2] for each in listeners)
        _log.info("side door open", addresses=[address for address, _ in self.ports])
        try:
            await self._changed.wait()
        finally:
            self.ports = ()
            server.should_exit = True
            await asyncio.shield(serving)
            for each in listeners:
                each.close()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the controller's business."""
        yield


def is_needed(context: "Context") -> bool:
    """Whether other machines cannot reach the panel itself."""
    settings = context.settings
    alone = is_loopback(settings.listen) or settings.listen == "localhost"
    return alone and not settings.behind_proxy and not settings.public_url


def _listeners(port: int) -> list[socket.socket]:
    """A listening socket on every outer address that takes one; the panel keeps the same port on loopback."""
    found: list[socket.socket] = []
    for address in _outer_addresses():
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            listener.listen(64)
            listener.setblocking(False)
        except OSError as error:
            _log.warning("the side door cannot listen", address=address, port=port, reason=error.strerror)
            listener.close()
        else:
            found.append(listener)
    return found


def _outer_addresses() -> list[str]:
    found: set[str] = set()
    for card in psutil.net_if_addrs().values():
        for each in card:
            if each.family in {socket.AF_INET, socket.AF_INET6} and "%" not in each.address:
                address = ipaddress.ip_address(each.address)
                if not (address.is_loopback or address.is_link_local):
                    found.add(each.address)
    return sorted(found)
