"""One controller with an agent that speaks the contract, for all tests of a module."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from harness.broker import eventually
from harness.controller import add_server
from harness.controller_fleet import SmallAgent, World, api_of, running_world, small_agent
from xfleet_contracts.commands import Command, Reply
from xfleet_contracts.errors import ErrorBody
from xfleet_controller.orders import store
from xfleet_controller.orders.limits import OrderLimits
from xfleet_controller.orders.verbs import ORDERS
from xfleet_controller.serve import bind, web_server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with running_world(tmp_path_factory.mktemp("world") / "data") as running:
        await add_server(running.controller.context, "away")
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def enrolled(world: World) -> AsyncIterator[SmallAgent]:
    async with small_agent(world) as agent:
        await eventually(lambda: world.controller.context.presence.is_online("local"))
        yield agent


@pytest_asyncio.fixture(loop_scope="module")
async def agent(world: World, enrolled: SmallAgent) -> AsyncIterator[SmallAgent]:
    """The agent, with nothing left of the test before."""
    context = world.controller.context
    enrolled.verbs.clear()
    context.order_limits = OrderLimits(context.clock)
    await eventually(lambda: _beaten(world, enrolled))
    enrolled.commands.clear()
    yield enrolled
    enrolled.verbs |= dict.fromkeys(ORDERS, _refused)

    async def nothing_waits() -> bool:
        async with context.database.read() as session:
            return await store.count_open(session, 1) == 0

    await eventually(nothing_waits)


async def _beaten(world: World, agent: SmallAgent) -> bool:
    if not world.controller.context.presence.is_online(agent.sid):
        await agent.beat()
    return world.controller.context.presence.is_online(agent.sid)


async def _refused(_command: Command) -> Reply:
    return Reply(ok=False, error=ErrorBody(code="over", message="the test is over"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(world: World) -> AsyncIterator[Any]:
    async with api_of(world) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def base_url(world: World) -> AsyncIterator[str]:
    """The panel over real HTTP, so that answers stream."""
    with bind("127.0.0.1", 0) as listener:
        async with web_server(world.controller, listener) as server:
            serving = asyncio.ensure_future(server.finished())
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
