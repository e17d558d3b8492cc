"""The way from a real stream into both databases, with everything killed on the way."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig

from harness.broker import FleetBroker, eventually, running_broker
from harness.ledger import INBOUND, ONE, TWO, LedgerBench, batch, delivery, epoch_of
from xfleet_contracts import codec, subjects
from xfleet_contracts.streams import TRAFFIC
from xfleet_contracts.traffic import Batch
from xfleet_controller.traffic.consumer import LedgerConsumer, StreamDelivery
from xfleet_nats.jetstream import ensure_streams
from xfleet_runtime.broker import BrokerLink, BrokerOutage

pytestmark = pytest.mark.real_broker

E1 = epoch_of(1)


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[FleetBroker]:
    async with running_broker(tmp_path, streams=True) as started:
        yield started


@asynccontextmanager
async def agent(broker: FleetBroker, sid: str = "srv1") -> AsyncIterator[BrokerLink]:
    async with broker.link("agent", sid) as link:
        await link.wait_connected(10)
        yield link


@asynccontextmanager
async def consuming(broker: FleetBroker, bench: LedgerBench) -> AsyncIterator[LedgerConsumer]:
    async with broker.link("ctl", "controller-1") as link:
        await link.wait_connected(10)
        consumer = LedgerConsumer(link, bench.ingest, bench.clock)
        task = asyncio.create_task(consumer.run())
        try:
            yield consumer
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def publish(link: BrokerLink, sent: Batch, sid: str = "srv1") -> None:
    payload = codec.encode(sent)
    message_id = f"{sent.epoch}:{sent.seq}:{codec.sha256_hex(payload)}"
    await link.publish_stored(subjects.traffic(sid), payload, message_id=message_id, stream=TRAFFIC.name)


def reaches(bench: LedgerBench, client: int, up: int) -> Callable[[], object]:
    async def reached() -> bool:
        return (await bench.totals()).get(client, (0, 0))[0] >= up

    return reached


async def test_published_batches_reach_the_totals_and_leave_the_stream(broker: FleetBroker, bench: LedgerBench) -> None:
    async with agent(broker) as link, consuming(broker, bench) as consumer:
        for seq in range(1, 11):
            await publish(link, batch(E1, seq, (ONE, INBOUND, 1, 2), (TWO, INBOUND, 1, 0)))
        await eventually(reaches(bench, ONE, 10))
        assert await bench.totals() == {ONE: (10, 20), TWO: (10, 0)}

        async def empty() -> bool:
            return await consumer.count_pending("srv1") == 0

        await eventually(empty)
        assert await consumer.count_pending("srv2") == 0


async def test_traffic_is_counted_once_after_a_kill_between_commit_and_ack(
    broker: FleetBroker, bench: LedgerBench
) -> None:
    async with agent(broker) as link, broker.link("ctl", "first") as first:
        await first.wait_connected(10)
        for seq in range(1, 6):
            await publish(link, batch(E1, seq, (ONE, INBOUND, 1, 0)))
        await first.js.add_consumer(
            TRAFFIC.name, ConsumerConfig(durable_name="ledger", ack_wait=1, ack_policy="explicit", max_ack_pending=5000)
        )  # fmt: skip
        pull = await first.js.pull_subscribe_bind("ledger", stream=TRAFFIC.name)
        messages = await pull.fetch(5, timeout=2)
        assert len(messages) == 5
        await bench.another_ingest()._commit([StreamDelivery(message) for message in messages])
        assert await bench.totals() == {ONE: (5, 0)}
        async with consuming(broker, bench) as second:

            async def acknowledged() -> bool:
                return await second.count_pending("srv1") == 0

            await eventually(acknowledged)
            await publish(link, batch(E1, 6, (ONE, INBOUND, 1, 0)))
            await eventually(reaches(bench, ONE, 6))
    assert await bench.totals() == {ONE: (6, 0)}


async def test_a_wiped_broker_store_loses_nothing_that_agents_send_again(
    broker: FleetBroker, bench: LedgerBench
) -> None:
    batches = [batch(E1, seq, (ONE, INBOUND, seq, 0)) for seq in range(1, 21)]
    async with agent(broker) as link:
        async with consuming(broker, bench):
            for sent in batches[:10]:
                await publish(link, sent)
            await eventually(reaches(bench, ONE, 55))
        for sent in batches[10:]:
            await publish(link, sent)
        await broker.process.stop()
        for store in (tmp for tmp in broker.settings.directory.rglob("jetstream") if tmp.is_dir()):
            shutil.rmtree(store)
        await broker.restart()
        async with broker.link("ctl", "repair") as repair:
            await repair.wait_connected(10)
            await ensure_streams(repair.js)
            assert (await repair.js.stream_info(TRAFFIC.name)).state.messages == 0
        await link.wait_connected(10)
        async with consuming(broker, bench):
            for sent in batches[7:]:
                await publish(link, sent)
            await eventually(reaches(bench, ONE, 210))
    assert await bench.totals() == {ONE: (210, 0)}


async def test_a_broker_that_restarts_is_found_again(broker: FleetBroker, bench: LedgerBench) -> None:
    async with agent(broker) as link, consuming(broker, bench):
        await publish(link, batch(E1, 1, (ONE, INBOUND, 1, 0)))
        await eventually(reaches(bench, ONE, 1))
        await broker.restart()
        await link.wait_connected(10)

        async def published() -> bool:
            with suppress(Exception):
                await publish(link, batch(E1, 2, (ONE, INBOUND, 1, 0)))
                return True
            return False

        await eventually(published)
        await eventually(reaches(bench, ONE, 2), within_s=20)


async def test_an_acknowledgement_the_broker_never_heard_is_said_again_on_the_next_connection(
    broker: FleetBroker, bench: LedgerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unheard(_message: Msg) -> None:
        pass

    async with agent(broker) as link, consuming(broker, bench) as consumer:
        monkeypatch.setattr(Msg, "ack", unheard)
        for seq in (1, 2):
            await publish(link, batch(E1, seq, (ONE, INBOUND, 1, 0)))
        await eventually(reaches(bench, ONE, 2))
        monkeypatch.undo()
        await broker.restart()
        await link.wait_connected(10)

        async def settled() -> bool:
            with suppress(BrokerOutage):
                return await consumer.count_pending("srv1") == 0
            return False

        await eventually(settled)
        duplicates = bench.registry.get_sample_value("xfleet_ledger_batches_total", {"outcome": "duplicate"})
        assert duplicates in {None, 0}
    assert await bench.totals() == {ONE: (2, 0)}


async def test_a_database_that_is_away_holds_the_stream_and_nothing_is_lost(
    broker: FleetBroker, bench: LedgerBench, request: pytest.FixtureRequest
) -> None:
    if bench.database.is_sqlite:
        pytest.skip("SQLite is a file, it does not go away")
    server = request.getfixturevalue("postgres_server")
    async with agent(broker) as link, consuming(broker, bench) as consumer:
        await publish(link, batch(E1, 1, (ONE, INBOUND, 1, 0)))
        await eventually(reaches(bench, ONE, 1))
        server.stop()
        try:
            await publish(link, batch(E1, 2, (ONE, INBOUND, 1, 0)))
            await eventually(lambda: bench.registry.get_sample_value("xfleet_ledger_delays_total"))
            assert await consumer.count_pending("srv1") == 1
        finally:
            server.start()
        await eventually(reaches(bench, ONE, 2))
    assert await bench.totals() == {ONE: (2, 0)}


async def test_a_server_that_floods_is_slowed_down_and_others_are_not(broker: FleetBroker, bench: LedgerBench) -> None:
    async with broker.link("ctl", "controller-1") as link:
        consumer = LedgerConsumer(link, bench.ingest, bench.clock)
        flood = [delivery("srv1", b"") for _ in range(700)]
        calm = delivery("srv2", b"")
        admitted = await consumer.admit([*flood, calm])
        assert (len(admitted), admitted[-1]) == (601, calm)
        assert [each.delays_s for each in flood[600:]] == [[5.0]] * 100
        bench.clock.advance(10)
        assert len(await consumer.admit(flood)) == 400
