"""Logs read once and followed live, over real HTTP: one lease for all who look, none when nobody does."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from harness.broker import eventually
from harness.controller import PASSWORD
from harness.controller_fleet import SmallAgent, World
from harness.orders import Log
from xfleet_contracts import subjects
from xfleet_contracts.logs import MAX_LEASES, LogsRead
from xfleet_controller.auth import service as auth
from xfleet_controller.auth.rights import Actor, Forbidden
from xfleet_controller.edge import cookie_name
from xfleet_controller.logs import service
from xfleet_controller.logs.hub import MAX_WAITING_BYTES, Batch, LogHub, TooManyWatchers, Watcher

pytestmark = [pytest.mark.real_broker, pytest.mark.asyncio(loop_scope="module")]
HOSTILE = "<img src=x onerror=alert(1)>\x1b[31m\x00"


@pytest_asyncio.fixture(loop_scope="module")
async def browser(world: World, base_url: str) -> AsyncIterator[httpx.AsyncClient]:
    context = world.controller.context
    made = await auth.sign_in(context, "admin", PASSWORD, address="127.0.0.1", kind="cookie")
    async with httpx.AsyncClient(base_url=base_url, timeout=10) as client:
        client.cookies.set(cookie_name(context), made.token)
        yield client


@pytest.fixture
def hub(world: World) -> LogHub:
    found = world.controller.context.log_hub
    assert found is not None
    return found


@pytest.fixture
def log(agent: SmallAgent) -> Log:
    return Log(agent)


async def until(chunks: AsyncIterator[str], word: str, *, within_s: float = 15) -> str:
    """What the stream says up to this word."""
    said = ""
    async with asyncio.timeout(within_s):
        async for chunk in chunks:
            said += chunk
            if word in said:
                return said
    raise AssertionError(said)


async def test_a_log_is_read_once_and_hostile_lines_are_text(browser: httpx.AsyncClient, api: Any, log: Log) -> None:
    log.lines = ("plain", HOSTILE)
    page = await browser.get("/servers/1/logs", params={"log": "xray_error", "lines": "100"})
    assert page.status_code == 200
    assert "&lt;img src=x onerror=alert(1)&gt;·[31m·" in page.text
    assert "<img src=x" not in page.text
    text = (await api.get("/api/v1/servers/1/logs", params={"log": "agent", "lines_count": 1})).json()
    assert len(text["lines"]) == 1


async def test_who_follows_gets_what_there_is_then_what_is_new_and_the_lease_ends_with_the_last(
    browser: httpx.AsyncClient, log: Log, hub: LogHub
) -> None:
    async with browser.stream("GET", "/servers/1/logs/live", params={"log": "agent"}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        chunks = stream.aiter_text()
        first = await until(chunks, "second")
        assert 'hx-swap="innerHTML"' in first
        await log.tell("second", f"third {HOSTILE}", dropped_count=3)
        fresh = await until(chunks, "third")
        assert 'hx-swap="beforeend"' in fresh
        assert "second" not in fresh
        assert ("3 lines were left out" in fresh, "<img" in fresh) == (True, False)
        async with browser.stream("GET", "/api/v1/servers/1/logs/live", params={"log": "agent"}) as other:
            others = other.aiter_text()
            await until(others, "data: ")
            await log.tell("for both")
            assert '"lines":["for both"]' in await until(others, "both")
            await until(chunks, "for both")
        assert [len(lease.watchers) for lease in hub.leases] in ([1], [2])
        assert len({lease.lease for lease in log.leases}) == 1
    await eventually(lambda: not hub.leases)
    await eventually(lambda: log.leases[-1].until_ms == 0)


async def _go_on(log: Log, line: str) -> None:
    """Tells this line until it gets through: after a flood there is room again only after a while."""
    while True:
        await log.tell(line)
        await asyncio.sleep(0.3)


async def test_a_flood_is_bounded_and_counted(browser: httpx.AsyncClient, log: Log, hub: LogHub) -> None:
    async with browser.stream("GET", "/api/v1/servers/1/logs/live") as stream:
        chunks = stream.aiter_text()
        await until(chunks, "data: ")
        await eventually(lambda: log.leases)
        for _ in range(100):
            await log.tell(*("x" * 1000,) * 100)
        ending = asyncio.ensure_future(_go_on(log, "after the flood"))
        try:
            said = await until(chunks, "after the flood", within_s=30)
        finally:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)
        assert len(said) < 8_000_000
        assert any(int(part.partition(",")[0].partition("}")[0]) > 0 for part in said.split('"dropped_count":')[1:])
    await eventually(lambda: not hub.leases)


async def test_nonsense_ends_the_stream_with_a_word(browser: httpx.AsyncClient, log: Log) -> None:
    async with browser.stream("GET", "/api/v1/servers/1/logs/live") as stream:
        chunks = stream.aiter_text()
        await until(chunks, "data: ")
        await eventually(lambda: log.leases)
        await log.agent.link.publish(subjects.log_lines("local", log.leases[-1].lease), b"\xff{")
        assert "bad_answer" in await until(chunks, "bad_answer")
    async with browser.stream("GET", "/servers/1/logs/live", params={"log": "/etc/shadow"}) as stream:
        chunks = stream.aiter_text()
        await until(chunks, "second")
        await log.tell(error="log_not_allowed")
        assert "This log may not be read." in await until(chunks, "may not")


async def test_too_many_live_logs_are_refused(world: World, hub: LogHub, agent: SmallAgent) -> None:
    from contextlib import AsyncExitStack

    async with AsyncExitStack() as stack:
        for number in range(MAX_LEASES):
            await stack.enter_async_context(hub.watching("local", "agent", f"filter {number}"))
        with pytest.raises(TooManyWatchers):
            await service.get_followable(world.controller.context, OWNER, 1, LogsRead(log="agent"))
        await stack.enter_async_context(hub.watching("local", "agent", "filter 1"))
    await eventually(lambda: not hub.leases)
    support = Actor(name="s", role="support", admin_id=9)
    with pytest.raises(Forbidden):
        await service.get_followable(world.controller.context, support, 1, LogsRead(log="agent"))


OWNER = Actor(name="admin", role="owner", admin_id=1)


async def test_a_watcher_that_does_not_read_holds_little() -> None:
    watcher = Watcher()
    for _ in range(100):
        watcher.give(Batch(lines=("x" * 1000,) * 100))
    batch = await watcher.next(1)
    assert batch is not None
    assert sum(map(len, batch.lines)) <= MAX_WAITING_BYTES
    assert len(batch.lines) + batch.dropped_count == 10_000


async def test_lines_that_were_read_are_not_told_again() -> None:
    overlap = service.without_overlap
    assert overlap(("a", "b", "c"), ("b", "c", "d")) == ("d",)
    assert overlap(("a", "a"), ("a", "b")) == ("b",)
    assert overlap(("a",), ("b",)) == ("b",)
    assert overlap((), ("b",)) == ("b",)
