"""The ledger's parts, put together in one place, and the loops they run in."""

import asyncio
from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry

from xfleet_contracts.traffic import LEDGER, LEDGER_BATCH
from xfleet_controller.db import Database
from xfleet_controller.traffic.allowances import AllowanceDesk
from xfleet_controller.traffic.clones import BeatBook
from xfleet_controller.traffic.consumer import LedgerConsumer
from xfleet_controller.traffic.inbox import LedgerInbox
from xfleet_controller.traffic.ingest import Ingest, NoteEvent
from xfleet_controller.traffic.ledger import LedgerSettings
from xfleet_controller.traffic.limits import ChangeAccess, Limits
from xfleet_controller.traffic.live import LiveRates
from xfleet_controller.traffic.metrics import LedgerMetrics
from xfleet_controller.traffic.receipts import Receipts, Sender
from xfleet_controller.traffic.rollup import RollUp
from xfleet_runtime.broker import BrokerLink
from xfleet_runtime.clock import Clock
from xfleet_runtime.supervise import supervise

Answerer = Callable[[str, int, bytes], Awaitable[bytes]]
"""Gets sid, server id and payload of an agent's call; gives the answer's payload."""


class LedgerParts:
    """Everything of the ledger in one controller."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        link: BrokerLink,
        sender: Sender,
        presence: BeatBook,
        note_event: NoteEvent,
        cut: ChangeAccess,
        lift: ChangeAccess,
        registry: CollectorRegistry,
        settings: LedgerSettings | None = None,
    ) -> None:
        self.metrics = LedgerMetrics(registry)
        self.receipts = Receipts(sender)
        self.ingest = Ingest(database, clock, self.receipts, self.metrics, note_event, settings)
        self.consumer = LedgerConsumer(link, self.ingest)
        self.limits = Limits(database, clock, cut, lift, note_event)
        self.allowances = AllowanceDesk(database, clock, sender)
        self.rollup = RollUp(database, clock, self.metrics, settings)
        self.live = LiveRates(clock)
        self.inbox = LedgerInbox(database, clock, self.receipts, presence, self.consumer.count_pending, note_event)
        self.ingest.on_commit += [self.limits.note, self.allowances.note, self.live.note]
        database.after_commit.append(self.allowances.note_change)

    def answerers(self) -> dict[str, Answerer]:
        """Methods of `fleet.rpc.<sid>.<method>` that the ledger answers."""
        return {LEDGER: self.inbox.on_ledger, LEDGER_BATCH: self.inbox.on_ledger_batch}

    async def run(self) -> None:
        """All loops, for ever."""
        async with asyncio.TaskGroup() as group:
            for name, loop in {
                "ledger ingest": self.consumer.run,
                "ledger receipts": self.receipts.run,
                "limits": self.limits.run,
                "allowances": self.allowances.run,
                "roll-up": self.rollup.run,
            }.items():
                group.create_task(supervise(name, loop))
