"""Receipts: tells agents what is committed, coalesced, and again whenever they ask."""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from xfleet_contracts.receipt import FORK, RECEIPT, Fork, Receipt
from xfleet_controller.traffic.ledger import Cursor, Forked
from xfleet_runtime.broker import BrokerOutage
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
COALESCE_S = 0.2


class Sender(Protocol):
    """Sends signed orders that nobody answers."""

    async def send(self, sid: str, verb: str, body: Any) -> None:
        """Sends the body under this verb to that server's agent. Raises `BrokerOutage`."""
        ...


class Receipts:
    """Keeps the newest receipt per server and epoch until it is on its way."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._waiting: dict[tuple[str, str], Receipt] = {}
        self._forks: list[Forked] = []
        self._woken = asyncio.Event()

    def note(self, sid: str, cursors: Mapping[str, Cursor]) -> None:
        """These epochs of the server are committed as far as their cursors say."""
        for epoch, cursor in cursors.items():
            if cursor.floor > 0:
                self._waiting[sid, epoch] = Receipt(epoch=epoch, committed_through=cursor.floor, digest=cursor.digest)
        self._woken.set()

    def note_fork(self, fork: Forked) -> None:
        """That agent has to seal this batch again under a new epoch."""
        self._forks.append(fork)
        self._woken.set()

    async def run(self) -> None:
        """Sends what waits, for ever; a loss is harmless because agents ask again."""
        while True:
            await self._woken.wait()
            await self.flush()
            await asyncio.sleep(COALESCE_S)

    async def flush(self) -> None:
        """Sends what waits now."""
        self._woken.clear()
        waiting, self._waiting = self._waiting, {}
        forks, self._forks = self._forks, []
        try:
            for fork in forks:
                body = Fork(
                    epoch=fork.epoch,
                    seq=fork.seq,
                    committed_digest=fork.committed_digest,
                    refused_digest=fork.refused_digest,
                )
                await self._sender.send(fork.sid, FORK, body)
            for (sid, _), receipt in waiting.items():
                await self._sender.send(sid, RECEIPT, receipt)
        except BrokerOutage as outage:
            _log.info("receipts were not sent; agents will ask", reason=str(outage))
