"""Few questions per person."""

from xfleet_bot.throttle import BURST_COUNT, Throttle
from xfleet_runtime.clock import FakeClock


def test_a_burst_is_allowed_then_slows_down_for_that_person_only() -> None:
    clock = FakeClock()
    throttle = Throttle(clock)
    assert all(throttle.allows(1) for _ in range(BURST_COUNT))
    assert not throttle.allows(1)
    assert throttle.allows(2)
    clock.advance(2)
    assert throttle.allows(1)
    assert not throttle.allows(1)
