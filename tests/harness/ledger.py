"""A ledger on a real database, fed by hand: a fleet's rows, batches as agents seal them, and what became of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client import CollectorRegistry
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts import codec, subjects
from xfleet_contracts.traffic import Batch, ClientRow, TagRow
from xfleet_controller.clients.models import Client, ClientInbound, Tombstone
from xfleet_controller.db import Database
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.outbox import note_event
from xfleet_controller.servers.models import Server
from xfleet_controller.traffic.ingest import Ingest
from xfleet_controller.traffic.ledger import LedgerSettings
from xfleet_controller.traffic.live import LiveRates
from xfleet_controller.traffic.metrics import LedgerMetrics
from xfleet_controller.traffic.models import ClientTotal, RejectedBatch, TagTotal
from xfleet_controller.traffic.receipts import Receipts
from xfleet_runtime.broker import Disconnected
from xfleet_runtime.clock import FakeClock

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
INTERVAL = timedelta(seconds=10)
ONE, TWO = 1001, 1002
INBOUND, OTHER_INBOUND = 501, 502


@dataclass
class RecordingSender:
    """Takes signed orders instead of an agent."""

    sent: list[tuple[str, str, Any]] = field(default_factory=list)
    away: bool = False

    async def send(self, sid: str, verb: str, body: Any) -> None:
        if self.away:
            raise Disconnected("away")
        self.sent.append((sid, verb, codec.decode(codec.encode(body), type(body))))

    def of(self, verb: str) -> list[Any]:
        """Bodies sent under a verb."""
        return [body for _, each, body in self.sent if each == verb]


@dataclass
class HandDelivery:
    """A message handed over by a test."""

    subject: str
    payload: bytes
    stored_at: datetime
    acked_count: int = 0
    delays_s: list[float] = field(default_factory=list)

    async def ack(self) -> None:
        self.acked_count += 1

    async def nak(self, delay_s: float) -> None:
        self.delays_s.append(delay_s)


def epoch_of(number: int) -> str:
    """An epoch that a test can name."""
    return f"{number:024x}"


def batch(epoch: str, seq: int, *rows: tuple[int, int, int, int], at: datetime = NOW, **more: Any) -> Batch:
    """A batch of (client, inbound, up, down) rows whose interval ends at `at`."""
    fields: dict[str, Any] = {
        "instance": "i1",
        "start_id": "s1",
        "from_at_ms": int((at - INTERVAL).timestamp() * 1000),
        "to_at_ms": int(at.timestamp() * 1000),
        "clients": tuple(ClientRow(c, i, int(at.timestamp()) // 3600, up, down) for c, i, up, down in rows),
        "tags": tuple(
            TagRow("inbound", str(i), int(at.timestamp()) // 3600, up, down) for _, i, up, down in rows
        ),
    }  # fmt: skip
    return Batch(epoch=epoch, seq=seq, **{**fields, **more})


def delivery(sid: str, message: Batch | bytes, at: datetime = NOW) -> HandDelivery:
    """The message as the stream hands it over."""
    payload = message if isinstance(message, bytes) else codec.encode(message)
    return HandDelivery(subjects.traffic(sid), payload, at)


class LedgerBench:
    """An ingest on a database, with a fleet of servers, inbounds and clients in it."""

    def __init__(self, database: Database, settings: LedgerSettings | None = None) -> None:
        self.database = database
        self.clock = FakeClock(NOW)
        self.sender = RecordingSender()
        self.receipts = Receipts(self.sender)
        self.live = LiveRates(self.clock)
        self.registry = CollectorRegistry()
        self.metrics = LedgerMetrics(self.registry)
        self.ingest = Ingest(database, self.clock, self.receipts, self.metrics, note_event, settings)

    def another_ingest(self) -> Ingest:
        """A second controller's ingest on the same database."""
        metrics = LedgerMetrics(CollectorRegistry())
        return Ingest(self.database, self.clock, self.receipts, metrics, note_event, self.ingest.settings)

    async def add_server(self, sid: str, inbounds: Sequence[int] = ()) -> int:
        """A server with these inbounds; its id."""
        async with self.database.write() as session:
            server = Server(slug=sid, name=sid, created_at=NOW - timedelta(days=30), updated_at=NOW)
            session.add(server)
            await session.flush()
            for ref in inbounds:
                session.add(
                    Inbound(
                        ref=ref, server_id=server.id, port=443, protocol="vless", config_sealed=b"", created_at=NOW,
                        updated_at=NOW,
                    )
                )  # fmt: skip
        return server.id

    async def add_clients(self, *refs: int, inbounds: Sequence[int] = (), **more: Any) -> None:
        """Clients with these refs, on these inbounds."""
        async with self.database.write() as session:
            ids = (await session.scalars(select(Inbound.id).where(Inbound.ref.in_(inbounds)))).all()
            for ref in refs:
                client = Client(
                    ref=ref, name=f"c{ref}", name_key=f"c{ref}", sub_id=f"s{ref}", created_at=NOW, updated_at=NOW,
                    **more,
                )  # fmt: skip
                session.add(client)
                await session.flush()
                for inbound_id in ids:
                    session.add(
                        ClientInbound(
                            client_id=client.id, inbound_id=inbound_id, credentials_sealed=b"", created_at=NOW
                        )
                    )

    async def bury(self, kind: str, ref: int, server_id: int | None = None) -> None:
        """Deletes an inbound or client, leaving the tombstone."""
        table = {"client": Client, "inbound": Inbound}[kind]
        async with self.database.write() as session:
            found = (await session.scalars(select(table).where(table.ref == ref))).one()
            await session.delete(found)
            session.add(Tombstone(kind=kind, key=str(ref), name=str(ref), server_id=server_id, deleted_at=NOW))

    async def take(self, sid: str, *messages: Batch | bytes) -> list[HandDelivery]:
        """Feeds these messages in one fetch."""
        deliveries = [delivery(sid, each, self.clock.now()) for each in messages]
        await self.ingest.take(deliveries)
        return deliveries

    async def totals(self) -> dict[int, tuple[int, int]]:
        """Up and down bytes by client."""
        async with self.database.read() as session:
            return {
                ref: (up, down)
                for ref, up, down in await session.execute(
                    select(ClientTotal.client_ref, ClientTotal.up_bytes, ClientTotal.down_bytes)
                )
            }

    async def total(self, ref: int) -> ClientTotal:
        """A client's total."""
        async with self.database.read() as session:
            found = await session.get(ClientTotal, ref)
            assert found is not None
            return found

    async def tags(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Up and down bytes by direction and tag."""
        async with self.database.read() as session:
            return {
                (row.direction, row.tag): (row.up_bytes, row.down_bytes)
                for row in await session.scalars(select(TagTotal))
            }

    async def rejected(self) -> list[RejectedBatch]:
        """Everything set aside."""
        async with self.database.read() as session:
            return list((await session.scalars(select(RejectedBatch).order_by(RejectedBatch.id))).all())

    async def count(self, table: Any) -> int:
        """Rows of a table."""
        async with self.database.read() as session:
            return await _count(session, table)


async def _count(session: AsyncSession, table: Any) -> int:
    return await session.scalar(select(func.count()).select_from(table)) or 0
