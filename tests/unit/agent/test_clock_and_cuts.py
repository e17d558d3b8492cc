"""Time that is learned, and who is cut by it."""

from hypothesis import given
from hypothesis import strategies as st

from xfleet_agent.cuts import cut_clients, expiries_of, next_expiry_ms, plan_cuts
from xfleet_agent.fleet_clock import DAY_MS, FleetClock
from xfleet_agent.state import Cut
from xfleet_contracts import codec
from xfleet_contracts.desired_state import ClientBody, EntityKey
from xfleet_runtime.clock import FakeClock

DAY_S = DAY_MS / 1000


def test_the_first_message_sets_the_clock_and_later_ones_only_move_it_forward() -> None:
    system = FakeClock()
    clock = FleetClock(system)
    true_ms = system.now_ms() - 5000
    clock.learn(true_ms)
    assert clock.now_ms() == true_ms
    clock.learn(true_ms - 60_000)
    assert clock.now_ms() == true_ms
    clock.learn(true_ms + 300)
    assert clock.now_ms() == true_ms + 300


def test_a_jump_of_a_year_is_neither_believed_nor_trusted_until_a_message_tells_the_time() -> None:
    system = FakeClock()
    clock = FleetClock(system)
    clock.learn(system.now_ms())
    before_ms = clock.now_ms()
    system.jump(365 * DAY_S)
    assert not clock.trusted
    assert clock.now_ms() - before_ms < 1000
    clock.learn(before_ms + 10)
    assert clock.trusted
    assert clock.now_ms() - before_ms < 1000


def test_a_jump_back_does_not_move_time_back() -> None:
    system = FakeClock()
    clock = FleetClock(system)
    before_ms = clock.now_ms()
    system.jump(-3600)
    assert clock.now_ms() >= before_ms
    assert clock.trusted


@given(st.lists(st.tuples(st.sampled_from(["advance", "jump", "learn"]), st.floats(-1e7, 1e7))))
def test_time_never_goes_backwards_once_it_was_learned(events: list[tuple[str, float]]) -> None:
    system = FakeClock()
    clock = FleetClock(system)
    clock.learn(system.now_ms())
    last_ms = clock.now_ms()
    for what, seconds in events:
        if what == "advance":
            system.advance(abs(seconds))
        elif what == "jump":
            system.jump(seconds)
        else:
            clock.learn(last_ms + int(seconds))
        assert clock.now_ms() >= last_ms
        last_ms = clock.now_ms()


def test_a_machine_that_wakes_up_in_another_year_is_not_trusted() -> None:
    system = FakeClock()
    assert not FleetClock(system, last_seen_ms=system.now_ms() - 2 * DAY_MS).trusted
    assert FleetClock(system, last_seen_ms=system.now_ms() - DAY_MS // 2).trusted
    behind = FleetClock(system, last_seen_ms=system.now_ms() + 10 * DAY_MS)
    assert behind.now_ms() >= system.now_ms() + 10 * DAY_MS


def entity(client: int, inbound: int, expires_at_ms: int | None) -> tuple[EntityKey, bytes]:
    body = ClientBody(client=client, inbound=inbound, expires_at_ms=expires_at_ms)
    return EntityKey(kind="client", id=f"{client}.{inbound}"), codec.canonical(body)


def test_expiry_is_the_clients_latest_and_never_when_one_of_its_entities_has_none() -> None:
    wanted = dict([entity(1, 7, 100), entity(1, 8, 300), entity(2, 7, 100), entity(2, 8, None), entity(3, 7, None)])
    assert expiries_of(wanted) == {1: 300}


def test_an_expired_client_is_cut_once_and_let_in_by_another_moment_only() -> None:
    add, lift = plan_cuts({}, {1: 100, 2: 900}, {}, now_ms=500, clock_trusted=True)
    assert (add, lift) == ([Cut(client=1, reason="expired", mark=100)], [])
    cuts = {(cut.client, cut.reason): cut for cut in add}
    assert plan_cuts(cuts, {1: 100, 2: 900}, {}, now_ms=50, clock_trusted=True) == ([], [])
    assert plan_cuts(cuts, {1: 800, 2: 900}, {}, now_ms=500, clock_trusted=True) == ([], [(1, "expired")])
    assert plan_cuts(cuts, {2: 900}, {}, now_ms=500, clock_trusted=True) == ([], [(1, "expired")])
    assert cut_clients(cuts) == frozenset({1})
    assert next_expiry_ms(cuts, {1: 100, 2: 900}) == 900


def test_nobody_expires_by_a_clock_that_is_not_trusted() -> None:
    assert plan_cuts({}, {1: 100}, {}, now_ms=500, clock_trusted=False) == ([], [])


def test_a_newer_serial_without_room_keeps_the_client_out() -> None:
    cuts = {(1, "allowance"): Cut(client=1, reason="allowance", mark=4)}
    assert plan_cuts(cuts, {}, {1: 4}, now_ms=0, clock_trusted=True) == ([], [])
    add, lift = plan_cuts(cuts, {}, {1: 5}, now_ms=0, clock_trusted=True)
    assert (add, lift) == ([Cut(client=1, reason="allowance", mark=5)], [])
    assert plan_cuts(cuts, {}, {}, now_ms=0, clock_trusted=True) == ([], [(1, "allowance")])
