"""The agent's idea of the controller's time, over restarts, wrong clocks and replayed messages."""

from datetime import timedelta

from xfleet_agent.fleet_clock import DAY_MS, FleetClock
from xfleet_runtime.clock import FakeClock

YEARS = timedelta(days=20 * 365)


def test_a_wrong_clock_is_not_believed_by_the_next_process_either() -> None:
    machine = FakeClock()
    disk = FleetClock(machine).facts()
    machine.advance(YEARS.total_seconds())
    wrong = FleetClock(machine, last_seen_ms=int(disk["last_seen_ms"]))
    assert not wrong.trusted
    disk |= wrong.facts()
    again = FleetClock(machine, offset_ms=int(disk["clock_offset_ms"]), last_seen_ms=int(disk["last_seen_ms"]))
    assert not again.trusted, "or everybody would be cut after the agent's restart"


def test_a_replayed_message_sets_no_clock_back_after_a_restart() -> None:
    machine = FakeClock()
    before = FleetClock(machine)
    before.learn(machine.now_ms())
    machine.advance(3600)
    before.learn(machine.now_ms())
    after = FleetClock(machine, **{name: int(value) for name, value in _named(before.facts()).items()})
    after.learn(machine.now_ms() - 7 * DAY_MS)
    assert after.now_ms() >= machine.now_ms() - 1000
    after.learn(machine.now_ms() + 5000)
    assert after.now_ms() == machine.now_ms() + 5000


def _named(facts: dict[str, str]) -> dict[str, str]:
    return {
        "offset_ms": facts["clock_offset_ms"],
        "last_seen_ms": facts["last_seen_ms"],
        "signed_ms": facts["signed_ms"],
    }
