"""Connections that say nothing: closed before they are many, for Uvicorn waits for a first request for ever."""

import asyncio
from collections import Counter
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from xfleet_controller.auth.throttle import network_of
from xfleet_controller.proxies import Networks, is_among, is_loopback

PATIENCE_S = 15.0
"""For the head of a request, and for each next piece of its body twice as long."""


def patient(*, per_network: int, trusted: Networks = (), patience_s: float = PATIENCE_S) -> type[H11Protocol]:  # noqa: C901
    """A protocol for one server; this machine and `trusted` proxies stand for many and have no limit."""
    open_now = Counter[str]()

    class Patient(H11Protocol):
        """Closes a connection from which no request comes, and one too many of a network."""

        def __init__(self, config: uvicorn.Config, *args: Any, **more: Any) -> None:
            super().__init__(config, *args, **more)
            self._network = ""
            self._waiting: asyncio.TimerHandle | None = None
            self._for_body = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            address = self.client[0] if self.client else ""
            if address and not is_loopback(address) and not is_among(address, trusted):
                self._network = network_of(address)
                open_now[self._network] += 1
                if open_now[self._network] > per_network:
                    transport.abort()
                    return
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._rest()
            if self._network:
                open_now[self._network] -= 1
                if not open_now[self._network]:
                    del open_now[self._network]
                self._network = ""
            super().connection_lost(exc)

        def _wait(self) -> None:
            """For a head until a fixed moment, for a body anew with every piece of it, for an answer not at all."""
            cycle = self.cycle
            head = cycle is None or cycle.response_complete
            if not (head or cycle.more_body):
                self._rest()
            elif not head or self._for_body or self._waiting is None:
                self._rest()
                self._for_body = not head
                delay_s = patience_s if head else 2 * patience_s
                self._waiting = self.loop.call_later(delay_s, self._give_up)

        def _rest(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
            self._waiting, self._for_body = None, False

        def _give_up(self) -> None:
            self._waiting = None
            cycle = self.cycle
            if cycle is None or cycle.response_complete or not (cycle.response_started or self.flow.read_paused):
                self.transport.abort()
            else:
                self._wait()

    return Patient
