"""Whatever order, repetition and mixture batches arrive in, and through however many ingesters: sums are exact."""

import asyncio
import itertools
import random
from collections import defaultdict

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from harness.ledger import INBOUND, NOW, OTHER_INBOUND, HandDelivery, LedgerBench, batch, delivery
from xfleet_contracts.traffic import Batch
from xfleet_controller.traffic.models import LedgerBody, LedgerCursor, LedgerKey
from xfleet_controller.traffic.reading import parse, unpack
from xfleet_runtime.ids import new_epoch

_example = itertools.count(1)
SERVERS = {"srv1": (1, INBOUND), "srv2": (2, OTHER_INBOUND)}

message = st.tuples(
    st.sampled_from(["srv1", "srv2"]), st.integers(0, 1), st.integers(1, 7), st.sampled_from([0, 0, 0, 1])
)
fetches = st.lists(
    st.tuples(st.integers(0, 1), st.booleans(), st.lists(message, min_size=1, max_size=8)), min_size=1, max_size=12
)


def sealed(epoch: str, clients: tuple[int, int], inbound: int, seq: int, variant: int) -> Batch:
    one, two = clients
    rows = [(one, inbound, 2**seq, variant), (two, inbound, 1, seq)]
    return batch(epoch, seq, *rows[: 1 + seq % 2], instance=f"v{variant}")


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(fetches)
async def test_sums_are_exact_under_duplicates_reorders_forks_and_two_ingesters(
    bench: LedgerBench, plan: list[tuple[int, bool, list[tuple[str, int, int, int]]]]
) -> None:
    number = next(_example) * 10 + 10_000
    clients = (number, number + 1)
    await bench.add_clients(*clients)
    epochs = [new_epoch(), new_epoch()]
    ingests = [bench.ingest, bench.another_ingest()]
    delivered: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    pending: list[tuple[int, list[HandDelivery]]] = []

    async def release() -> None:
        await asyncio.gather(*(ingests[which].take(deliveries) for which, deliveries in pending))
        pending.clear()

    for which, together, messages in plan:
        made: list[HandDelivery] = []
        for sid, e, seq, variant in messages:
            sent = sealed(epochs[e], clients, SERVERS[sid][1], seq, variant)
            made.append(delivery(sid, sent))
            delivered[sid, epochs[e], seq].add(sent.instance)
        pending.append((which, made))
        if not together:
            await release()
    await release()

    async with bench.database.read() as session:
        bodies = (await session.scalars(select(LedgerBody).where(LedgerBody.epoch.in_(epochs)))).all()
        cursors = (await session.scalars(select(LedgerCursor).where(LedgerCursor.epoch.in_(epochs)))).all()
        keys = (await session.scalars(select(LedgerKey).where(LedgerKey.epoch.in_(epochs)))).all()
    sid_of = {server_id: sid for sid, (server_id, _) in SERVERS.items()}
    committed = {
        (sid_of[body.server_id], body.epoch, body.seq): parse(unpack(body.body or b"")).head for body in bodies
    }
    assert committed.keys() == delivered.keys()
    assert all(head.instance in delivered[key] for key, head in committed.items())

    wanted: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for head in committed.values():
        for row in head.clients:
            wanted[row.client][0] += row.up_bytes
            wanted[row.client][1] += row.down_bytes
    found = await bench.totals()
    assert {ref: list(found[ref]) for ref in clients if ref in found} == wanted

    for cursor in cursors:
        seqs = {seq for sid, epoch, seq in committed if (sid, epoch) == (sid_of[cursor.server_id], cursor.epoch)}
        prefix = next(n for n in itertools.count(1) if n not in seqs) - 1
        above = {key.seq for key in keys if (key.server_id, key.epoch) == (cursor.server_id, cursor.epoch)}
        assert (cursor.floor, above) == (prefix, {seq for seq in seqs if seq > prefix})


async def test_two_ingesters_with_crossing_clients_do_not_deadlock(bench: LedgerBench) -> None:
    clients = list(range(20_000, 20_300))
    await bench.add_clients(*clients)
    ingests = [bench.ingest, bench.another_ingest()]
    shuffler = random.Random(7)
    epochs = {sid: new_epoch() for sid in SERVERS}

    async def feed(which: int, sid: str) -> None:
        for seq in range(1, 21):
            shuffler.shuffle(clients)
            rows = [(client, SERVERS[sid][1], 1, 1) for client in clients]
            await ingests[which].take([delivery(sid, batch(epochs[sid], seq, *rows))])

    await asyncio.gather(feed(0, "srv1"), feed(1, "srv2"))
    found = await bench.totals()
    assert {found[client] for client in clients} == {(40, 40)}
    assert bench.clock.now() == NOW
