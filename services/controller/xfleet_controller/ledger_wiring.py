"""Puts the ledger's parts together: consumer, receipts, limits, allowances, roll-ups, and the calls it answers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.heartbeat import Heartbeat
from xfleet_contracts.traffic import LEDGER, LEDGER_BATCH
from xfleet_controller.bus import Bus, Commander
from xfleet_controller.clients import service as clients
from xfleet_controller.context import Context
from xfleet_controller.fleet.inbox import Desks
from xfleet_controller.outbox import note_event
from xfleet_controller.traffic.allowances import AllowanceDesk
from xfleet_controller.traffic.consumer import LedgerConsumer
from xfleet_controller.traffic.inbox import LedgerInbox
from xfleet_controller.traffic.ingest import Ingest
from xfleet_controller.traffic.limits import Limits
from xfleet_controller.traffic.live import LiveRates
from xfleet_controller.traffic.metrics import LedgerMetrics
from xfleet_controller.traffic.receipts import Receipts
from xfleet_controller.traffic.rollup import RollUp


@dataclass(kw_only=True)
class Ledger:
    """The ledger's running parts."""

    ingest: Ingest
    consumer: LedgerConsumer
    receipts: Receipts
    limits: Limits
    allowances: AllowanceDesk
    rollup: RollUp
    live: LiveRates
    loops: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict[str, Callable[[], Awaitable[None]]])


def open_ledger(context: Context, bus: Bus, commander: Commander, desks: Desks) -> Ledger:
    """The ledger over the traffic link; its loops are run by the caller.

    On PostgreSQL two consumers take turns: one reads and judges while the other one's rows are being written.
    """
    database, clock, metrics = context.database, context.clock, LedgerMetrics(context.registry)
    receipts = Receipts(commander)
    ingest = Ingest(database, clock, receipts, metrics, note_event)
    consumer = LedgerConsumer(bus.traffic, ingest, clock)
    limits = _limits(context)
    allowances = AllowanceDesk(database, clock, commander)
    rollup, live = RollUp(database, clock, metrics), LiveRates(clock)
    inbox = LedgerInbox(database, clock, receipts, context.presence, consumer.count_pending, note_event)
    desks.add(LEDGER, inbox.on_ledger)
    desks.add(LEDGER_BATCH, inbox.on_ledger_batch)
    ingest.on_commit += [limits.note, allowances.note, live.note, context.pulse.ring]
    database.after_commit.append(allowances.note_change)
    context.presence.on_double.append(inbox.note_double)
    context.presence.on_instance.append(lambda sid, beat: _on_instance(allowances, sid, beat))
    return Ledger(
        ingest=ingest,
        consumer=consumer,
        receipts=receipts,
        limits=limits,
        allowances=allowances,
        rollup=rollup,
        live=live,
        loops={
            **{f"ledger {number}": consumer.run for number in range(1, 2 if database.is_sqlite else 3)},
            "receipts": receipts.run,
            "limits": limits.run,
            "allowances": allowances.run,
            "roll-up": rollup.run,
            "doubles": inbox.run,
        },
    )


def _limits(context: Context) -> Limits:
    async def cut(session: AsyncSession, client_ref: int, reason: str) -> list[int]:
        return await clients.cut_client(session, context, client_ref, reason)

    async def lift(session: AsyncSession, client_ref: int, _reason: str) -> list[int]:
        return await clients.lift_cut(session, context, client_ref)

    return Limits(context.database, context.clock, cut, lift)


def _on_instance(allowances: AllowanceDesk, sid: str, _beat: Heartbeat) -> None:
    allowances.note_server(sid)
