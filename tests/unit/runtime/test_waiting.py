"""Backoff, supervised loops, and rhythms."""

import asyncio
import itertools

import pytest

from xfleet_runtime.backoff import Backoff
from xfleet_runtime.clock import FakeClock
from xfleet_runtime.supervise import every, supervise


def test_waits_double_up_to_the_limit_with_jitter_and_start_over() -> None:
    backoff = Backoff(first_s=1, most_s=8)
    waits = [backoff.next_s() for _ in range(8)]
    for wait, step in zip(waits, [1, 2, 4, 8, 8, 8, 8, 8], strict=True):
        assert step / 2 <= wait <= step
    backoff.reset()
    assert backoff.next_s() <= 1


async def test_a_loop_that_fails_is_started_again_until_cancelled() -> None:
    runs = 0
    enough = asyncio.Event()

    async def loop() -> None:
        nonlocal runs
        runs += 1
        if runs == 3:
            enough.set()
            await asyncio.Event().wait()
        raise RuntimeError("a bug")

    task = asyncio.ensure_future(supervise("loop", loop, most_s=0.01))
    await asyncio.wait_for(enough.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_slow_step_skips_beats_instead_of_hurrying_after_them() -> None:
    beats: list[float] = []

    async def step() -> None:
        beats.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.05)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await every(0.02, step)
    assert all(later - earlier >= 0.045 for earlier, later in itertools.pairwise(beats))


def test_a_held_clock_moves_only_when_told() -> None:
    clock = FakeClock()
    before = clock.now_ms(), clock.monotonic_s()
    clock.advance(1.5)
    assert (clock.now_ms() - before[0], clock.monotonic_s() - before[1]) == (1500, 1.5)
    clock.jump(-3600)
    assert clock.monotonic_s() == 1.5
