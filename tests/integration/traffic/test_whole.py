"""Traffic through a whole controller: bus, ledger, quota, desired state and API together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from harness.broker import eventually
from harness.controller import WEBSOCKET
from harness.controller_fleet import SmallAgent, World, api_of, running_world, small_agent
from harness.ledger import batch
from xfleet_contracts import codec, subjects
from xfleet_contracts.allowance import ALLOWANCE, Allowances
from xfleet_contracts.commands import Command
from xfleet_contracts.receipt import RECEIPT, Receipt
from xfleet_contracts.traffic import LEDGER, LedgerAnswer, LedgerQuery
from xfleet_controller.clients.models import Client
from xfleet_controller.inbounds.models import Inbound
from xfleet_runtime.broker import Incoming
from xfleet_runtime.ids import new_epoch

pytestmark = pytest.mark.real_broker
MIB = 1024**2


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running_world(tmp_path / "data") as running:
        yield running


class Meter:
    """Seals batches as the agent of `local` and hears what the controller says to them."""

    def __init__(self, agent: SmallAgent, client: int, inbound: int) -> None:
        self.agent = agent
        self.rows = (client, inbound)
        self.epoch = new_epoch()
        self.seq = 0
        self.receipts: list[Receipt] = []
        self.allowances: list[Allowances] = []

    async def hear(self, message: Incoming) -> None:
        command = codec.decode(message.payload, Command)
        if command.verb == RECEIPT:
            self.receipts.append(msgspec.json.decode(command.body, type=Receipt))
        if command.verb == ALLOWANCE:
            self.allowances.append(msgspec.json.decode(command.body, type=Allowances))

    async def send(self, up: int, down: int) -> None:
        self.seq += 1
        payload = codec.encode(batch(self.epoch, self.seq, (*self.rows, up, down), at=datetime.now(UTC)))
        digest = codec.sha256_hex(payload)
        await self.agent.link.publish_stored(
            subjects.traffic("local"), payload, message_id=f"{self.epoch}:{self.seq}:{digest}"
        )


@asynccontextmanager
async def metering(world: World, api: Any, **client: Any) -> AsyncIterator[tuple[Meter, int]]:
    """An agent that applies, and one client on one inbound of it."""
    async with small_agent(world) as agent:
        server_id = (await api.get("/api/v1/servers")).json()["items"][0]["id"]
        inbound = (await api.post("/api/v1/inbounds", json={**WEBSOCKET, "server_id": server_id})).json()
        body = {"name": "ann", "inbound_ids": [inbound["id"]], **client}
        client_id = (await api.post("/api/v1/clients", json=body)).json()["id"]
        async with world.controller.context.database.read() as session:
            ref = await session.scalar(select(Client.ref).where(Client.id == client_id))
            inbound_ref = await session.scalar(select(Inbound.ref).where(Inbound.id == inbound["id"]))
        assert ref is not None
        assert inbound_ref is not None
        meter = Meter(agent, ref, inbound_ref)
        await agent.link.subscribe(subjects.commands("local"), meter.hear)

        async def beat() -> None:
            while True:
                await agent.beat()
                await asyncio.sleep(0.3)

        beats = asyncio.ensure_future(beat())
        try:
            yield meter, client_id
        finally:
            beats.cancel()
            await asyncio.gather(beats, return_exceptions=True)


async def test_bytes_show_in_the_api_and_the_agent_gets_its_receipt(world: World) -> None:
    async with api_of(world) as api, metering(world, api) as (meter, client_id):
        await meter.send(1000, 234)
        await meter.send(1, 1)

        async def shown() -> bool:
            client = (await api.get(f"/api/v1/clients/{client_id}")).json()
            return (client["up_bytes"], client["down_bytes"]) == (1001, 235)

        await eventually(shown)
        await eventually(lambda: meter.receipts and meter.receipts[-1].committed_through == 2)
        totals = (await api.get("/api/v1/traffic")).json()
        assert (totals["up_bytes"], totals["down_bytes"]) == (1001, 235)
        query = LedgerQuery(instance="i1", epoch=meter.epoch, starts=("s1",))

        async def answered() -> bool:
            reply = await meter.agent.call(LEDGER, query)
            found = msgspec.json.decode(reply.data, type=LedgerAnswer)
            return found.pending_count == 0 and [mark.through for mark in found.committed] == [2]

        await eventually(answered)


async def test_a_depleted_client_is_taken_off_and_comes_back_with_a_larger_quota(world: World) -> None:
    async with api_of(world) as api, metering(world, api, total_bytes=5 * MIB) as (meter, client_id):

        def present() -> bool:
            return any(key.kind == "client" for key in meter.agent.bodies)

        async def state() -> str:
            return (await api.get(f"/api/v1/clients/{client_id}")).json()["state"]

        await eventually(present)
        await meter.send(2 * MIB, 2 * MIB)
        await eventually(lambda: meter.allowances)
        assert meter.allowances[-1].items[0].allowance_bytes == MIB
        assert meter.allowances[-1].as_of_floor == 1
        await meter.send(MIB, 0)
        await eventually(lambda: not present())
        assert await state() == "depleted"
        await api.patch(f"/api/v1/clients/{client_id}", json={"total_bytes": 50 * 1024 * MIB})
        await eventually(present)
        await eventually(lambda: meter.allowances[-1].items[0].allowance_bytes is None)
        assert await state() == "active"
