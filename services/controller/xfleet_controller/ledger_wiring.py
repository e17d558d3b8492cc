"""Puts the ledger's parts together: consumer, receipts, limits, and the calls it answers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from xfleet_controller.bus import Bus, Commander
from xfleet_controller.context import Context
from xfleet_controller.fleet.inbox import Desks
from xfleet_controller.outbox import note_event
from xfleet_controller.traffic.consumer import LedgerConsumer
from xfleet_controller.traffic.ingest import Ingest
from xfleet_controller.traffic.metrics import LedgerMetrics
from xfleet_controller.traffic.receipts import Receipts


@dataclass(kw_only=True)
class Ledger:
    """The ledger's running parts."""

    ingest: Ingest
    consumer: LedgerConsumer
    receipts: Receipts
    loops: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict[str, Callable[[], Awaitable[None]]])


def open_ledger(context: Context, bus: Bus, commander: Commander, desks: Desks) -> Ledger:
    """The ledger over the traffic link; its loops are run by the caller."""
    receipts = Receipts(commander)
    ingest = Ingest(context.database, context.clock, receipts, LedgerMetrics(context.registry), note_event)
    consumer = LedgerConsumer(bus.traffic, ingest)
    _ = desks
    return Ledger(
        ingest=ingest,
        consumer=consumer,
        receipts=receipts,
        loops={"ledger": consumer.run, "receipts": receipts.run},
    )
