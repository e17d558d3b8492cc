"""Quota: decided once on the ledger, enforced everywhere, lifted when there is some again."""

from datetime import timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from harness.ledger import INBOUND, NOW, ONE, OTHER_INBOUND, TWO, LedgerBench, batch, epoch_of
from xfleet_contracts.allowance import ALLOWANCE
from xfleet_controller.clients.models import Client
from xfleet_controller.traffic.allowances import AllowanceDesk
from xfleet_controller.traffic.limits import Limits, reset_usage
from xfleet_controller.traffic.models import LimitAct

E1, E2 = epoch_of(1), epoch_of(2)
MIB = 1024**2
GIB = 1024**3


class Access:
    """Cuts and lifts in the clients table only, and remembers."""

    def __init__(self) -> None:
        self.deeds: list[tuple[str, int]] = []

    async def cut(self, session: AsyncSession, client_ref: int, reason: str) -> list[int]:
        self.deeds.append(("cut", client_ref))
        await session.execute(update(Client).where(Client.ref == client_ref).values(cut_reason=reason))
        return []

    async def lift(self, session: AsyncSession, client_ref: int, _reason: str) -> list[int]:
        self.deeds.append(("lift", client_ref))
        await session.execute(update(Client).where(Client.ref == client_ref).values(cut_reason=None))
        return []


@pytest.fixture
def access() -> Access:
    return Access()


@pytest.fixture
def limits(bench: LedgerBench, access: Access) -> Limits:
    made = Limits(bench.database, bench.clock, access.cut, access.lift)
    bench.ingest.on_commit.append(made.note)
    return made


@pytest.fixture
def desk(bench: LedgerBench) -> AllowanceDesk:
    made = AllowanceDesk(bench.database, bench.clock, bench.sender)
    bench.ingest.on_commit.append(made.note)
    return made


async def set_quota(bench: LedgerBench, ref: int, total_bytes: int | None) -> None:
    async with bench.database.write() as session:
        await session.execute(update(Client).where(Client.ref == ref).values(total_bytes=total_bytes))


async def test_a_client_over_its_quota_is_cut_once_and_its_neighbour_goes_on(
    bench: LedgerBench, limits: Limits, access: Access
) -> None:
    await set_quota(bench, ONE, 5 * MIB)
    await set_quota(bench, TWO, 50 * MIB)
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, 2 * MIB, 2 * MIB), (TWO, INBOUND, MIB, MIB)))
    assert await limits.step() == []
    await bench.take("srv2", batch(E1, 1, (ONE, OTHER_INBOUND, MIB, 0)))
    assert await limits.step() == [ONE]
    await bench.take("srv2", batch(E1, 2, (ONE, OTHER_INBOUND, MIB, 0)))
    assert await limits.step() == []
    assert await limits.sweep() == []
    assert access.deeds == [("cut", ONE)]
    async with bench.database.read() as session:
        act = (await session.scalars(select(LimitAct))).one()
    assert (act.client_ref, act.rule, act.details["used_bytes"]) == (ONE, "quota", 5 * MIB)


async def test_a_sweep_cuts_whom_a_killed_controller_missed(bench: LedgerBench, access: Access) -> None:
    await set_quota(bench, ONE, 1)
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, 1, 0)))
    fresh = Limits(bench.database, bench.clock, access.cut, access.lift)
    assert await fresh.sweep() == [ONE]


async def test_a_raised_quota_lets_the_client_in_and_lowering_it_again_cuts_it_again(
    bench: LedgerBench, limits: Limits, access: Access
) -> None:
    await set_quota(bench, ONE, MIB)
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, MIB, 0)))
    await limits.step()
    await set_quota(bench, ONE, 2 * MIB)
    await limits.sweep()
    await set_quota(bench, ONE, MIB)
    await limits.sweep()
    await set_quota(bench, ONE, None)
    await limits.sweep()
    assert access.deeds == [("cut", ONE), ("lift", ONE), ("cut", ONE), ("lift", ONE)]
    assert await bench.count(LimitAct) == 1


async def test_a_reset_begins_a_new_period_and_its_limit_acts_anew(
    bench: LedgerBench, limits: Limits, access: Access
) -> None:
    await set_quota(bench, ONE, MIB)
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, MIB, 0)))
    await limits.step()
    bench.clock.advance(3600)
    async with bench.database.write() as session:
        await reset_usage(session, [ONE, TWO], access.lift, bench.clock.now())
    bench.clock.advance(60)
    await bench.take("srv1", batch(E1, 2, (ONE, INBOUND, MIB, 0), at=bench.clock.now()))
    assert await limits.step() == [ONE]
    assert access.deeds == [("cut", ONE), ("lift", ONE), ("cut", ONE)]
    assert await bench.count(LimitAct) == 2
    assert (await bench.total(ONE)).up_bytes == 2 * MIB


async def test_a_quota_raised_while_the_client_is_being_cut_wins(bench: LedgerBench) -> None:
    await set_quota(bench, ONE, 1)
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, 1, 0)))

    async def cut_late(session: AsyncSession, client_ref: int, reason: str) -> None:
        values = {"cut_reason": reason, "total_bytes": 100}
        await session.execute(update(Client).where(Client.ref == client_ref).values(values))

    limits = Limits(bench.database, bench.clock, cut_late, cut_late)
    assert await limits.sweep() == []
    assert await bench.count(LimitAct) == 0


async def test_a_client_near_its_quota_is_told_to_every_server_it_is_on(
    bench: LedgerBench, desk: AllowanceDesk
) -> None:
    await set_quota(bench, ONE, 10 * GIB)
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, GIB, 0)))
    await desk.step()
    assert bench.sender.sent == []
    await bench.take("srv1", batch(E1, 2, (ONE, INBOUND, 5 * GIB, 2 * GIB + GIB // 2), (TWO, INBOUND, 9 * GIB, 0)))
    await desk.step()
    assert [sid for sid, verb, _ in bench.sender.sent if verb == ALLOWANCE] == ["srv1", "srv2"]
    one, two = bench.sender.of(ALLOWANCE)
    assert (one.as_of_epoch, one.as_of_floor) == (E1, 2)
    assert (two.as_of_epoch, two.as_of_floor) == ("", 0)
    assert [(item.client, item.allowance_bytes) for item in one.items] == [(ONE, GIB + GIB // 2)]


async def test_small_differences_are_not_told_and_serials_grow(bench: LedgerBench, desk: AllowanceDesk) -> None:
    await set_quota(bench, ONE, 100 * MIB)
    for seq, up in enumerate((MIB, 1000, 30 * MIB, 69 * MIB), start=1):
        await bench.take("srv1", batch(E1, seq, (ONE, INBOUND, up, 0)))
        await desk.step()
    told = [body.items[0] for sid, _, body in bench.sender.sent if sid == "srv1"]
    assert [item.allowance_bytes for item in told] == [99 * MIB, 69 * MIB - 1000, 0]
    assert [item.serial for item in told] == sorted({item.serial for item in told})


async def test_a_raised_or_removed_quota_lifts_the_allowance(bench: LedgerBench, desk: AllowanceDesk) -> None:
    await set_quota(bench, ONE, MIB)
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, MIB, 0)))
    await desk.step()
    await set_quota(bench, ONE, 100 * GIB)
    desk.note_change()
    await desk.step()
    assert [body.items[0].allowance_bytes for sid, _, body in bench.sender.sent if sid == "srv2"] == [0, None]


async def test_a_returned_agent_is_told_everything_that_concerns_it(bench: LedgerBench, desk: AllowanceDesk) -> None:
    await set_quota(bench, ONE, 100 * MIB)
    await set_quota(bench, TWO, 100 * MIB)
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, MIB, 0), (TWO, INBOUND, MIB, 0)))
    await desk.step()
    await set_quota(bench, TWO, None)
    await desk.step()
    bench.sender.sent.clear()
    desk.note_server("srv2")
    await desk.step()
    ((sid, _, body),) = bench.sender.sent
    assert sid == "srv2"
    assert {item.client: item.allowance_bytes for item in body.items} == {ONE: 99 * MIB, TWO: None}


async def test_what_is_committed_above_a_hole_is_not_subtracted_twice(bench: LedgerBench, desk: AllowanceDesk) -> None:
    await set_quota(bench, ONE, 100 * MIB)
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, MIB, 0)), batch(E1, 3, (ONE, INBOUND, 4 * MIB, 0)))
    await desk.step()
    by_server = {sid: body for sid, _, body in bench.sender.sent}
    assert by_server["srv1"].as_of_floor == 1
    assert by_server["srv1"].items[0].allowance_bytes == 99 * MIB
    assert by_server["srv2"].items[0].allowance_bytes == 95 * MIB


async def test_decisions_are_repeated_for_a_while_because_messages_may_be_lost(
    bench: LedgerBench, desk: AllowanceDesk
) -> None:
    await set_quota(bench, ONE, 100 * MIB)
    await bench.take("srv1", batch(E1, 1, (ONE, INBOUND, MIB, 0)))
    bench.sender.away = True
    await desk.step()
    bench.sender.away = False
    for _ in range(5):
        bench.clock.advance(60)
        await desk.sweep()
    told = [body for sid, _, body in bench.sender.sent if sid == "srv1"]
    assert [body.items[0].allowance_bytes for body in told] == [99 * MIB] * 2
    assert NOW + timedelta(seconds=300) == bench.clock.now()
