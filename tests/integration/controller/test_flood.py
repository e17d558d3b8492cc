"""A really enrolled agent turns hostile: it takes nobody else offline, is cut, then suspended, and can be let back."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from harness.broker import attacker, eventually
from harness.controller_fleet import SmallAgent, World, api_of, events_of, open_token, running_world, small_agent
from xfleet_contracts.apply import ChunkRequest
from xfleet_controller.fleet.watch import Limits, Watch, find_offenders
from xfleet_nats.system import Connection, Use
from xfleet_runtime.broker import BrokerOutage

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real_broker]
FLOOD_S = 4.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with running_world(tmp_path_factory.mktemp("world") / "data", heartbeat_interval_s=1.0) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def api(world: World) -> AsyncIterator[Any]:
    async with api_of(world) as client:
        yield client


async def joined(world: World, api: Any, name: str) -> tuple[int, Any]:
    made = await api.post("/api/v1/servers", json={"name": name})
    assert made.status_code == 201, made.text
    line = (await api.post(f"/api/v1/servers/{made.json()['id']}/enrollment-tokens")).json()["enrollment_token"]
    return made.json()["id"], msgspec.structs.replace(open_token(line), broker_urls=(world.broker.url,))


async def flood(agent: SmallAgent, seconds: float) -> int:
    """Everything an agent may send, as fast as it can, nonsense and all."""
    count, until, junk = 0, time.monotonic() + seconds, os.urandom(2000)
    inbox = f"_INBOX.a.{agent.sid}.x"
    tails = ("hb", "traffic", "event", "log.agent", "blob.x1")
    while time.monotonic() < until:
        try:
            for tail in tails:
                await agent.link.publish(f"fleet.up.{agent.sid}.{tail}", junk)
            for method in ("ledger", "renew", "state", "nonsense"):
                await agent.link.publish(f"fleet.rpc.{agent.sid}.{method}", junk, reply=inbox)
        except BrokerOutage:
            await asyncio.sleep(0.05)
            continue
        count += len(tails) + 4
        await asyncio.sleep(0)
    return count


async def test_a_flood_takes_no_other_server_offline_and_its_calls_are_answered(world: World, api: Any) -> None:
    quiet_id, quiet_token = await joined(world, api, "quiet")
    _, loud_token = await joined(world, api, "loud")
    async with small_agent(world, token=quiet_token) as quiet, small_agent(world, token=loud_token) as loud:
        flooding = asyncio.ensure_future(flood(loud, FLOOD_S))
        took_ms: list[float] = []
        statuses: set[str] = set()
        while not flooding.done():
            await quiet.beat()
            started_s = time.monotonic()
            reply = await quiet.call("state", ChunkRequest(revision=1, chunk="0" * 64))
            took_ms.append((time.monotonic() - started_s) * 1000)
            assert reply.error is not None
            assert reply.error.code == "snapshot_gone"
            statuses.add((await api.get(f"/api/v1/servers/{quiet_id}")).json()["status"])
            await asyncio.sleep(0.1)
        sent = await flooding
        assert statuses == {"online"}
        assert world.controller.context.presence.refused_count["too_fast"] > 0
        took_ms.sort()
        figures = (
            f"flood of {sent / FLOOD_S:.0f} messages/s: a neighbour's call took {took_ms[len(took_ms) // 2]:.0f} ms"
        )
        sys.stdout.write(f"{figures} in the middle, {took_ms[-1]:.0f} ms at most, of {len(took_ms)}\n")


async def test_who_floods_is_cut_then_suspended_and_comes_back_when_it_is_lifted(world: World, api: Any) -> None:
    server_id, token = await joined(world, api, "hostile")
    neighbour_id, neighbour_token = await joined(world, api, "neighbour")
    watch = Watch(world.controller.context, Limits(messages_per_s=200, strikes=2))
    async with small_agent(world, token=token) as hostile, small_agent(world, token=neighbour_token) as neighbour:
        await watch.look()
        await flood(hostile, 0.5)
        await watch.look()
        await eventually(lambda: hostile.link.last_error)
        await eventually(lambda: hostile.link.connected)
        await watch.look()
        await flood(hostile, 0.5)
        await watch.look()
        await eventually(lambda: hostile.link.refused, within_s=5)
        assert neighbour.link.connected
        await neighbour.beat()
        shown = (await api.get(f"/api/v1/servers/{server_id}")).json()
        assert (shown["status"], "suspended" in shown["last_error"]) == ("offline", True)
        kinds = [event.type for event in await events_of(world) if event.server == "hostile"]
        assert {"server_kicked", "server_suspended"} <= set(kinds)
    (row,) = (await api.get(f"/api/v1/servers/{server_id}/identities")).json()
    assert (row["status"], row["reason"]) == ("revoked", "suspended")
    assert (await api.post(f"/api/v1/servers/{neighbour_id}/lift-suspension")).json()["code"] == "not_suspended"
    assert (await api.post(f"/api/v1/servers/{server_id}/lift-suspension")).status_code == 204
    (row,) = (await api.get(f"/api/v1/servers/{server_id}/identities")).json()
    assert row["status"] == "good"
    await api.post(f"/api/v1/servers/{server_id}/revoke", json={"reason": "enough"})
    assert (await api.post(f"/api/v1/servers/{server_id}/lift-suspension")).json()["code"] == "not_suspended"


async def test_many_connections_of_one_identity_are_cut(world: World, api: Any) -> None:
    _, token = await joined(world, api, "many")
    watch = Watch(world.controller.context, Limits(connections=2))
    async with small_agent(world, token=token) as agent:
        credentials = agent.link.credentials
        async with attacker(credentials) as one, attacker(credentials) as two:
            await watch.look()
            await watch.look()
            await asyncio.wait_for(asyncio.gather(one.closed.wait(), two.closed.wait()), 5)


def use(nkey: str, cid: int, messages: int, size_bytes: int = 0) -> Use:
    return Use(connection=Connection("n1", cid, nkey, "", 0), messages=messages, size_bytes=size_bytes)


async def test_what_is_above_a_limit_is_found_and_nothing_else() -> None:
    limits = Limits(connections=2, messages_per_s=10, bytes_per_s=1000)
    before = {("n1", 1): use("A", 1, 1000), ("n1", 2): use("B", 2, 0)}
    now = [use("A", 1, 1090), use("B", 2, 150), use("C", 3, 5, 20_000), *(use("D", cid, 0) for cid in range(4, 7))]
    assert find_offenders(before, now, 10, limits) == {
        "B": "15 messages a second",
        "C": "0 MiB a second",
        "D": "3 connections at once",
    }
