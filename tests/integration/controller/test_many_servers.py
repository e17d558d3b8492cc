"""A client's change on many servers at once, with agents in a process of their own; figures: `tests/bench/fleet`."""

from pathlib import Path

import pytest

from harness.broker import eventually
from harness.controller_fleet import api_of, running_world
from harness.crowd import add_inbounds, add_servers, running_crowd

pytestmark = pytest.mark.real_broker
SERVERS = 12


async def test_one_change_is_acknowledged_by_every_server(tmp_path: Path) -> None:
    async with running_world(tmp_path / "data") as world:
        tokens = await add_servers(world, SERVERS)
        inbound_ids = await add_inbounds(world.controller.context)
        presence = world.controller.context.presence
        async with api_of(world) as api, running_crowd(tokens, tmp_path):
            await eventually(lambda: len(presence.list_seen()) == SERVERS, within_s=30)
            body = {"name": "everywhere", "inbound_ids": inbound_ids}
            made = (await api.post("/api/v1/clients", params={"wait": 25}, json=body, timeout=40)).json()
            assert [task["status"] for task in made["tasks"]] == ["completed"] * SERVERS
            gone = (await api.delete(f"/api/v1/clients/{made['id']}", params={"wait": 25}, timeout=40)).json()
            assert [task["status"] for task in gone["tasks"]] == ["completed"] * SERVERS
