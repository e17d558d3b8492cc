"""Live pages miss no change, however it falls between their looks."""

import asyncio

from xfleet_controller.panel.pulse import Pulse


async def test_ring_before_the_wait_is_not_missed() -> None:
    pulse = Pulse()
    seen = pulse.rings_count
    pulse.ring("whatever")
    async with asyncio.timeout(1):
        await pulse.wait(seen, 60)


async def test_ring_wakes_all_who_wait() -> None:
    pulse = Pulse()
    async with asyncio.timeout(1), asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(pulse.wait(pulse.rings_count, 60))
        await asyncio.sleep(0)
        pulse.ring()


async def test_silence_ends_with_the_time() -> None:
    pulse = Pulse()
    await pulse.wait(pulse.rings_count, 0.01)
    assert not pulse.closed


async def test_closing_wakes_and_says_so() -> None:
    pulse = Pulse()
    seen = pulse.rings_count
    pulse.close()
    await pulse.wait(seen, 60)
    assert pulse.closed
