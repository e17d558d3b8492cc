"""The end of a server and of its machine, over the real broker: retiring, and another machine in its place."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
from sqlalchemy import select

from harness.broker import eventually
from harness.controller import PASSWORD, REALITY, make_beat
from harness.controller_fleet import World, api_of, beating, open_token, running_world, small_agent
from xfleet_contracts.heartbeat import SpoolState
from xfleet_controller.auth.rights import SYSTEM
from xfleet_controller.fleet.models import Revocation
from xfleet_controller.inbounds.models import Host, Inbound
from xfleet_controller.pages import panel_pages
from xfleet_controller.servers import jobs, removal, service
from xfleet_controller.servers.dialogs import waiting_view
from xfleet_controller.servers.models import Server
from xfleet_controller.web_app import create_web_app

pytestmark = pytest.mark.real_broker
OLD, NEW, OTHER = "198.51.100.1", "203.0.113.9", "192.0.2.200"
INTERVAL_S = 0.6


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running_world(tmp_path / "data", heartbeat_interval_s=INTERVAL_S) as running:
        yield running


@pytest.fixture
async def api(world: World) -> AsyncIterator[Any]:
    async with api_of(world) as client:
        yield client


def at(address: str) -> dict[str, Any]:
    """What a beat from this address holds."""
    return {"host": msgspec.structs.replace(make_beat().host, default_address=address)}


async def shown(api: Any, server_id: int = 1) -> dict[str, Any]:
    answer = await api.get(f"/api/v1/servers/{server_id}")
    return answer.json() if answer.status_code == 200 else {}


async def test_a_server_is_gone_only_after_its_agent_took_all_down_and_told_its_last_bytes(
    world: World, api: Any
) -> None:
    body = {**REALITY, "server_id": 1}
    assert (await api.post("/api/v1/inbounds", json=body)).status_code == 201
    async with small_agent(world) as agent:
        await eventually(lambda: any(key.kind == "inbound" for key in agent.bodies))
        done = await api.delete("/api/v1/servers/1", params={"with_inbounds": True})
        assert done.json()["state"] == "retiring", done.text
        await eventually(lambda: not any(key.kind == "inbound" for key in agent.bodies))
        clock, context = world.controller.context.clock, world.controller.context
        until_s = clock.monotonic_s() + 1.5 * context.presence.stale_after_s

        async def waited() -> bool:
            await agent.beat(spool=SpoolState(sealed_batches_count=1))
            await removal.finish_retired(context, await service.refresh_known(context))
            return clock.monotonic_s() > until_s

        await eventually(waited, every_s=0.3)
        assert (await shown(api))["retiring_at"] is not None
        assert agent.link.connected

        async def gone() -> bool:
            return not await shown(api)

        await beating(agent, gone)
        await eventually(lambda: agent.link.refused, within_s=5)
    async with world.controller.context.database.read() as session:
        assert (await session.scalars(select(Revocation.nkey))).all() == [agent.keys.pair.public]


async def test_another_machine_takes_a_servers_place_and_addresses_follow(world: World, api: Any) -> None:
    made = (await api.post("/api/v1/inbounds", json={**REALITY, "server_id": 1})).json()
    await api.patch("/api/v1/servers/1", json={"public_address": OLD})
    context = world.controller.context
    async with context.database.write() as session:
        ref = await session.scalar(select(Inbound.ref))
        session.add_all([Host(inbound_id=made["id"], address=each, options={}) for each in (OLD, OTHER)])
    async with small_agent(world) as old:
        await old.beat(**at(OLD))
        await eventually(lambda: old.point.revision > 0)

        async def told() -> bool:
            await jobs.flush_presence(context)
            return (await shown(api))["reported_address"] == OLD

        await beating_at(old, told, OLD)
        body = {"replaces": True, "public_address": "x y", "anywhere": True}
        wrong = await api.post("/api/v1/servers/1/join-line", json=body)
        assert (wrong.status_code, wrong.json()["errors"][0]["code"]) == (422, "bad_address"), wrong.text
        join = await api.post("/api/v1/servers/1/join-line", json={"replaces": True, "anywhere": True})
        token = open_token(join.json()["enrollment_token"])
        token = msgspec.structs.replace(token, broker_urls=(world.broker.url,))
        async with small_agent(world, token=token) as new:
            await eventually(lambda: not old.link.connected, within_s=3)
            new.instance = "i2"

            async def replaced() -> bool:
                await jobs.flush_presence(context)
                return ((await shown(api)).get("replaced") or {}).get("state") == "done"

            await beating_at(new, replaced, NEW)
            await eventually(lambda: any(key.id == str(ref) for key in new.bodies))
    after = await shown(api)
    assert (after["public_address"], after["replaced"]["hosts_count"]) == (NEW, 1)
    assert (after["replaced"]["old_address"], after["replaced"]["new_address"]) == (OLD, NEW)
    async with context.database.read() as session:
        assert sorted(await session.scalars(select(Host.address))) == sorted([NEW, OTHER])
        assert (await session.get_one(Server, 1)).public_address == NEW


async def test_a_server_is_added_in_the_panel_and_its_line_is_waited_for(world: World) -> None:
    context = world.controller.context
    pages = panel_pages(context)
    app = create_web_app(context, pages=pages.handlers, html_error=pages.html_error)
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 40000))
    async with httpx.AsyncClient(transport=transport, base_url="http://panel.example.com") as browser:
        await browser.post("/login", data={"username": "admin", "password": PASSWORD})
        found = re.search(r'name="csrf_token" value="([^"]+)"', (await browser.get("/servers")).text)
        assert found is not None
        browser.headers.update(
            {"x-csrf-token": found.group(1), "hx-request": "true", "hx-target": "div#dialog-content"}
        )
        step = await browser.post("/servers/new", data={"name": "Quito 1"})
        assert 'name="broker_urls"' in step.text, step.text
        local = await browser.post("/servers/2/join/broker", data={"broker_urls": "127.0.0.1"})
        assert local.status_code == 422
        assert 'id="error-broker_urls"' in local.text
        line = await browser.post("/servers/2/join", data={"anyway": "on"})
        assert "Waiting for it" in line.text, line.text
        server_id, since_s = re.search(r"ids=(\d+)%2C(\d+)", line.text).groups()  # type: ignore[union-attr]
    async with api_of(world) as api:
        join = await api.post("/api/v1/servers/2/join-line", json={"anywhere": True})
    visit: Any = SimpleNamespace(context=context, actor=SYSTEM)
    assert (await waiting_view(visit, int(server_id), int(since_s))).state == "waiting"
    enrolling = msgspec.structs.replace(open_token(join.json()["enrollment_token"]), broker_urls=(world.broker.url,))
    async with small_agent(world, token=enrolling) as agent:

        async def online() -> bool:
            await agent.beat()
            return (await waiting_view(visit, int(server_id), int(since_s))).state == "online"

        await eventually(online, every_s=0.4)
    assert agent.sid == "quito-1"


async def beating_at(agent: Any, condition: Any, address: str) -> None:
    """Waits for the condition while the agent beats from this address."""

    async def holds() -> bool:
        await agent.beat(**at(address))
        return await condition()

    await eventually(holds, every_s=0.4)
