from datetime import timedelta

import msgspec
import pytest
from sqlalchemy import select, update

from harness.ledger import INBOUND, NOW, ONE, OTHER_INBOUND, TWO, LedgerBench, batch, epoch_of
from xfleet_contracts import codec
from xfleet_contracts.traffic import TagRow
from xfleet_controller.traffic import query, rollup_store
from xfleet_controller.traffic.ledger import LedgerSettings
from xfleet_controller.traffic.models import (
    ClientInboundTotal,
    LedgerBody,
    OutboundTraffic,
    RejectedBatch,
    ServerMinute,
    TrafficDaily,
    TrafficHourly,
)
from xfleet_controller.traffic.query import Bytes, Scope
from xfleet_controller.traffic.rollup import RollUp

E1 = epoch_of(1)
HOUR = int(NOW.timestamp()) // 3600


def rollup(bench: LedgerBench, **settings: int) -> RollUp:
    return RollUp(bench.database, bench.clock, bench.metrics, LedgerSettings(**settings))


async def hours(bench: LedgerBench) -> dict[tuple[int, int, int], tuple[int, int]]:
    async with bench.database.read() as session:
        rows = await session.scalars(select(TrafficHourly))
        return {(row.client_ref, row.inbound_ref, row.hour): (row.up_bytes, row.down_bytes) for row in rows}


async def test_hours_days_and_inbounds_add_up_to_the_batches_exactly_once(bench: LedgerBench) -> None:
    tomorrow = NOW + timedelta(hours=14)
    bench.clock.advance(14 * 3600)
    await bench.take(
        "srv1", batch(E1, 1, (ONE, INBOUND, 1, 2)), batch(E1, 2, (ONE, INBOUND, 10, 20), (TWO, INBOUND, 5, 5))
    )
    await bench.take("srv2", batch(E1, 1, (ONE, OTHER_INBOUND, 7, 7), at=tomorrow))
    job = rollup(bench)
    assert await job.step() == 3
    assert await job.step() == 0
    assert await hours(bench) == {
        (ONE, INBOUND, HOUR): (11, 22),
        (TWO, INBOUND, HOUR): (5, 5),
        (ONE, OTHER_INBOUND, HOUR + 14): (7, 7),
    }
    async with bench.database.read() as session:
        days = {(row.client_ref, row.day): row.up_bytes for row in await session.scalars(select(TrafficDaily))}
        inbounds = {
            (row.client_ref, row.inbound_ref): (row.server_id, row.up_bytes)
            for row in await session.scalars(select(ClientInboundTotal))
        }
    assert days == {(ONE, HOUR // 24): 11, (TWO, HOUR // 24): 5, (ONE, (HOUR + 14) // 24): 7}
    assert inbounds == {(ONE, INBOUND): (1, 11), (TWO, INBOUND): (1, 5), (ONE, OTHER_INBOUND): (2, 7)}


async def test_rows_set_aside_are_not_rolled_up(bench: LedgerBench) -> None:
    fields = msgspec.json.decode(codec.encode(batch(E1, 1, (ONE, INBOUND, 1, 1), (TWO, INBOUND, 2, 2))))
    fields["clients"][0][3] = -1
    fields["clients"].append([TWO, OTHER_INBOUND, HOUR, 9, 9])
    fields["tags"] = [["outbound", "direct", HOUR, 3, 4], ["outbound", "direct", HOUR + 50, 3, 4]]
    await bench.take("srv1", codec.canonical(fields))
    await rollup(bench).step()
    assert await hours(bench) == {(TWO, INBOUND, HOUR): (2, 2)}
    async with bench.database.read() as session:
        outbound = (await session.scalars(select(OutboundTraffic))).one()
    assert (outbound.tag, outbound.hour, outbound.up_bytes) == ("direct", HOUR, 3)


async def test_a_batch_claimed_elsewhere_is_not_added_again(bench: LedgerBench) -> None:
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, 1, 1)))
    async with bench.database.read() as session:
        waiting = await rollup_store.list_waiting(session, NOW, 10, 10)
    await rollup(bench).step()
    async with bench.database.write() as session:
        assert not await rollup_store.claim(session, waiting)
    assert await hours(bench) == {(ONE, INBOUND, HOUR): (1, 1)}


async def test_a_kill_in_the_middle_of_a_roll_up_repeats_nothing(bench: LedgerBench) -> None:
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, 1, 1)))
    async with bench.database.read() as session:
        waiting = await rollup_store.list_waiting(session, NOW, 10, 10)

    async def killed() -> None:
        async with bench.database.write() as session:
            assert await rollup_store.claim(session, waiting)
            await rollup_store.add(session, rollup_store.columns_of({(ONE, INBOUND, HOUR, 1): [1, 1]}, {}))
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        await killed()
    await rollup(bench).step()
    assert await hours(bench) == {(ONE, INBOUND, HOUR): (1, 1)}


async def test_little_is_rolled_up_soon_and_much_waits_to_be_merged(bench: LedgerBench) -> None:
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, 1, 1)))
    job = rollup(bench)
    assert not await job.is_due()
    bench.clock.advance(6)
    assert await job.is_due()
    async with bench.database.write() as session:
        await session.execute(update(LedgerBody).values(rows_count=60_000))
    assert not await job.is_due()
    bench.clock.advance(30)
    assert await job.is_due()


async def test_the_oldest_rolled_up_bodies_go_when_they_are_too_large(bench: LedgerBench) -> None:
    for seq in (1, 2, 3):
        await bench.take("srv1", batch(E1, seq, (ONE, INBOUND, seq, 1)))
        bench.clock.advance(10)
    job = rollup(bench, bodies_max_bytes=400)
    await job.tidy()
    async with bench.database.read() as session:
        assert all(await session.scalars(select(LedgerBody.body)))
    await job.step()
    await job.tidy()
    async with bench.database.read() as session:
        kept = [body.seq for body in await session.scalars(select(LedgerBody)) if body.body is not None]
    assert kept in ([3], [2, 3])
    bench.clock.advance(31 * 86400)
    await job.tidy()
    assert await bench.count(LedgerBody) == len(kept)
    assert await bench.count(ServerMinute) == 0


async def test_the_oldest_rejected_batches_go_when_they_are_too_large(bench: LedgerBench) -> None:
    for number in range(5):
        await bench.take("srv1", b"x" * 1000 + bytes([number]))
    await rollup(bench, rejected_max_bytes=2100).tidy()
    async with bench.database.read() as session:
        kept = (await session.scalars(select(RejectedBatch.payload))).all()
    assert [payload[-1] for payload in sorted(kept)] == [3, 4]


async def test_series_totals_and_rates_are_read_back(bench: LedgerBench) -> None:
    tags = (TagRow("inbound", str(INBOUND), HOUR, 110, 220), TagRow("outbound", "direct", HOUR, 100, 200))
    bench.ingest.on_commit.append(bench.live.note)
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, 100, 200), tags=tags))
    await rollup(bench).step()
    async with bench.database.read() as session:
        assert (await query.get_client(session, ONE)).period_bytes == 300
        assert (await query.get_client(session, 999)).period_bytes == 0
        assert await query.get_fleet(session) == Bytes(100, 200)
        assert await query.find_inbounds(session, [INBOUND, OTHER_INBOUND]) == {INBOUND: Bytes(110, 220)}
        assert await query.find_servers(session, [1, 2]) == {1: Bytes(110, 220)}
        assert await query.find_outbounds(session, 1) == {"direct": Bytes(100, 200)}
        assert await query.find_client_inbounds(session, ONE) == {INBOUND: Bytes(100, 200)}
        assert await query.list_online(session, NOW + timedelta(seconds=29)) == {ONE}
        assert await query.list_online(session, NOW + timedelta(seconds=31)) == set()
        assert await query.list_top_clients(session, NOW, 5, server_id=1) == [(ONE, Bytes(100, 200))]
        assert await query.list_gaps(session, 1, NOW) == []
        since = NOW - timedelta(minutes=59)
        minutes = await query.list_series(session, Scope(server_id=1), "minute", since, NOW)
        assert len(minutes) == 60
        assert (minutes[-1].at, minutes[-1].up_bytes) == (NOW, 100)
        for scope in (Scope(), Scope(client_ref=ONE), Scope(inbound_ref=INBOUND), Scope(server_id=1)):
            points = await query.list_series(session, scope, "hour", NOW - timedelta(hours=2), NOW)
            assert [point.up_bytes for point in points] == [0, 0, 100]
            (day,) = await query.list_series(session, scope, "day", NOW, NOW)
            assert day.down_bytes == 200
        outbound = await query.list_outbound_series(session, 1, "direct", NOW, NOW)
        assert [point.down_bytes for point in outbound] == [200]
        assert await query.find_rates(session, [1, 2], NOW + timedelta(seconds=40)) == {1: Bytes(1, 2)}
    assert bench.live.get(1).down_bytes_s == 20
    bench.clock.advance(60)
    assert bench.live.get(1).down_bytes_s == 0
