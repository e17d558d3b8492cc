"""Backups come in and restores go out in parts, over the real broker; a hostile agent gets nothing kept."""

import hashlib
from typing import Any

import msgspec
import pytest

from harness.broker import eventually
from harness.controller_fleet import SmallAgent, World
from xfleet_contracts import codec, subjects
from xfleet_contracts.care import (
    BLOB_PART_BYTES,
    BackupOrder,
    BlobAsk,
    BlobPart,
    BlobSent,
    Restored,
    RestoreOrder,
)
from xfleet_contracts.commands import Command, Reply
from xfleet_controller.auth.rights import Actor, Forbidden
from xfleet_controller.orders import service
from xfleet_controller.orders.blobs import MAX_PARTS

pytestmark = [pytest.mark.real_broker, pytest.mark.asyncio(loop_scope="module")]
ARCHIVE = bytes(range(256)) * 1600


def parts_of(data: bytes) -> list[bytes]:
    return [data[at : at + BLOB_PART_BYTES] for at in range(0, len(data), BLOB_PART_BYTES)]


def sent(transfer: str, data: bytes, **more: Any) -> BlobSent:
    fields = {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "parts_count": len(parts_of(data))}
    return BlobSent(transfer=transfer, **(fields | more))


class Sender:
    """An agent that sends a backup, well or badly."""

    def __init__(self, agent: SmallAgent) -> None:
        self.agent = agent
        self.acknowledged: list[Reply] = []

    async def part(self, transfer: str, index: int, count: int, data: bytes) -> Reply:
        message = codec.encode(BlobPart(index=index, parts_count=count, data=data))
        answer = await self.agent.link.request(subjects.blob(self.agent.sid, transfer), message, timeout_s=5)
        self.acknowledged.append(codec.decode(answer.payload, Reply))
        return self.acknowledged[-1]

    async def all(self, transfer: str, data: bytes) -> None:
        parts = parts_of(data)
        for index, part in enumerate(parts):
            assert (await self.part(transfer, index, len(parts), part)).ok


def transfer_of(command: Command) -> str:
    return msgspec.json.decode(command.body, type=BackupOrder).transfer


async def test_a_backup_arrives_byte_for_byte_and_is_a_task(world: World, api: Any, agent: SmallAgent) -> None:
    sender = Sender(agent)

    async def backup(command: Command) -> BlobSent:
        transfer = transfer_of(command)
        await sender.all(transfer, ARCHIVE)
        assert (await sender.part(transfer, 1, 4, parts_of(ARCHIVE)[1])).ok  # a lost acknowledgement
        return sent(transfer, ARCHIVE)

    agent.verbs["backup"] = backup
    answer = await api.post("/api/v1/servers/1/backup")
    assert (answer.status_code, answer.content == ARCHIVE) == (200, True)
    assert 'filename="xfleet-local-' in answer.headers["content-disposition"]
    task = (await api.get("/api/v1/tasks", params={"verb": "backup"})).json()["items"][0]
    assert (task["status"], task["took_ms"] is not None) == ("completed", True)
    assert not any((world.settings.data_dir / "transfers").iterdir())


@pytest.mark.parametrize(
    "crime",
    ["another_hash", "too_few", "out_of_order", "too_large_a_part", "an_empty_part", "too_many", "no_part", "liar"],
)
async def test_a_hostile_backup_is_thrown_away(api: Any, agent: SmallAgent, crime: str) -> None:
    sender, data = Sender(agent), ARCHIVE

    async def backup(command: Command) -> BlobSent | None:
        transfer, count = transfer_of(command), len(parts_of(data))
        if crime == "another_hash":
            await sender.all(transfer, data)
            return sent(transfer, data, sha256="0" * 64)
        if crime == "too_few":
            await sender.part(transfer, 0, count, parts_of(data)[0])
        if crime == "no_part":
            return sent(transfer, data)
        if crime == "liar":
            await sender.all(transfer, data)
            return sent("other", data)
        bad = {
            "out_of_order": (2, count, data[:100]),
            "too_large_a_part": (0, count, b"x" * (BLOB_PART_BYTES + 1)),
            "an_empty_part": (0, count, b""),
            "too_many": (0, MAX_PARTS + 1, data[:100]),
        }
        if crime in bad:
            index, parts_count, part = bad[crime]
            assert not (await sender.part(transfer, index, parts_count, part)).ok
            return None  # never answers: the controller must not wait for it
        return sent(transfer, data)

    agent.verbs["backup"] = backup
    answer = await api.post("/api/v1/servers/1/backup", timeout=8)
    assert (answer.status_code, answer.json()["code"]) == (502, "blob_wrong"), answer.text
    task = (await api.get("/api/v1/tasks", params={"verb": "backup"})).json()["items"][0]
    assert (task["status"], task["error"]["code"]) == ("failed", "blob_wrong")


async def test_a_backup_never_outgrows_its_limit(api: Any, agent: SmallAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    from xfleet_controller.orders import blobs

    monkeypatch.setattr(blobs, "MAX_BLOB_BYTES", 2 * BLOB_PART_BYTES)
    sender, taken = Sender(agent), 0

    async def endless(command: Command) -> None:
        nonlocal taken
        transfer = transfer_of(command)
        while (await sender.part(transfer, taken, MAX_PARTS, b"x" * BLOB_PART_BYTES)).ok:
            taken += 1

    agent.verbs["backup"] = endless
    answer = await api.post("/api/v1/servers/1/backup", timeout=8)
    assert (answer.status_code, answer.json()["code"], taken) == (413, "too_large", 2)


async def test_parts_nobody_asked_for_are_not_answered(agent: SmallAgent) -> None:
    from xfleet_runtime.broker import BrokerOutage

    with pytest.raises(BrokerOutage):
        await Sender(agent).part("0" * 32, 0, 1, b"x")


async def test_a_restore_is_fetched_by_that_server_alone_and_only_while_it_runs(
    world: World, api: Any, agent: SmallAgent
) -> None:
    orders: list[RestoreOrder] = []

    async def ask(transfer: str, index: int) -> Reply:
        message = codec.encode(BlobAsk(transfer=transfer, index=index))
        answer = await agent.link.request(subjects.call(agent.sid, "blob"), message, timeout_s=5)
        return codec.decode(answer.payload, Reply)

    async def restore(command: Command) -> Restored:
        order = msgspec.json.decode(command.body, type=RestoreOrder)
        orders.append(order)
        found = b""
        for index in range(order.parts_count):
            reply = await ask(order.transfer, index)
            found += msgspec.json.decode(reply.data, type=BlobPart).data
        assert hashlib.sha256(found).hexdigest() == order.sha256
        beyond = await ask(order.transfer, order.parts_count)
        assert (beyond.error or Reply).code == "blob_gone"
        transfers = world.controller.context.transfers
        assert transfers is not None
        message = codec.encode(BlobAsk(transfer=order.transfer, index=0))
        with pytest.raises(Exception, match="not offered"):
            await transfers.answer("away", 2, message)
        return Restored(certificates=("example.com",))

    agent.verbs["restore"] = restore
    answer = await api.post("/api/v1/servers/1/restore", content=ARCHIVE)
    assert (answer.status_code, answer.json()["certificates"]) == (200, ["example.com"]), answer.text
    assert (orders[0].size_bytes, orders[0].parts_count) == (len(ARCHIVE), len(parts_of(ARCHIVE)))
    after = await ask(orders[0].transfer, 0)
    assert (after.error or Reply).code == "blob_gone"
    empty = await api.post("/api/v1/servers/1/restore", content=b"")
    assert (empty.status_code, empty.json()["code"]) == (502, "blob_wrong")


async def test_only_one_file_at_a_time_per_server(world: World, api: Any, agent: SmallAgent) -> None:
    import asyncio

    gate, sender = asyncio.Event(), Sender(agent)

    async def slow(command: Command) -> BlobSent:
        await gate.wait()
        await sender.all(transfer_of(command), ARCHIVE)
        return sent(transfer_of(command), ARCHIVE)

    agent.verbs["backup"] = slow
    first = asyncio.ensure_future(api.post("/api/v1/servers/1/backup"))
    await eventually(lambda: agent.commands)
    second = await api.post("/api/v1/servers/1/backup")
    assert (second.status_code, second.json()["code"]) == (429, "rate_limited")
    gate.set()
    assert (await first).status_code == 200
    reader = Actor(name="r", role="read-only", admin_id=5)
    with pytest.raises(Forbidden):
        await service.backup(world.controller.context, reader, 1)
