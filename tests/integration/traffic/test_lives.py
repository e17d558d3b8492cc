"""Random lives of the real agent's courier against the real ledger: whatever happens, every byte is counted once."""

import asyncio
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.ledger import LedgerBench, delivery
from harness.ledger_world import Agent, World, Xray, heal
from xfleet_contracts import codec
from xfleet_contracts.errors import RemoteRefusal
from xfleet_contracts.heartbeat import Heartbeat, HostFigures, XrayState
from xfleet_contracts.receipt import FORK, RECEIPT
from xfleet_contracts.traffic import BatchName, BatchRequest, LedgerAnswer, LedgerQuery
from xfleet_controller.db import Database
from xfleet_controller.outbox import note_event
from xfleet_controller.traffic.inbox import BatchNotKept, LedgerInbox

CLIENTS, INBOUNDS = (1, 2), (10, 11)
CLIENT = st.sampled_from(["c:1.10", "c:2.10", "c:2.11"])
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("move"), CLIENT, st.integers(0, 1000), st.integers(0, 1000)),
        *(
            st.tuples(st.just(name))
            for name in (
                "read", "deliver", "deliver_lost_ack", "ingest", "ingest_unacknowledged", "receipts", "reconnect",
                "kill", "hours_pass", "copy", "roll_back", "wipe_broker", "restart_xray", "save_ledger",
                "restore_ledger",
            )
        ),
    ),
    max_size=40,
)  # fmt: skip


@dataclass
class Book:
    """Presence: every living instance has just beaten."""

    world: World
    offline_after_s: float = 35.0

    def get(self, _sid: str) -> Any:
        now_s = self.world.clock.monotonic_s()
        beats = {
            instance: (
                Heartbeat(
                    instance=instance, seq=1, sent_at_ms=0, xray=XrayState(status="running", start_id=start),
                    host=HostFigures(),
                ),
                now_s,
            )
            for instance, start in self.world.live.items()
        }  # fmt: skip
        return type("Seen", (), {"beats": beats})


class RealWorld(World):
    """A world whose ledger is the controller's, on SQLite."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.open()

    def open(self) -> None:
        self.bench = LedgerBench(Database(f"sqlite+aiosqlite:///{self.path}"))
        self.bench.clock = self.clock
        self.bench.ingest._clock = self.clock
        self.inbox = LedgerInbox(
            self.bench.database, self.clock, self.bench.receipts, Book(self), self._count, note_event
        )

    async def _count(self, _sid: str) -> int:
        return len(self.stream)

    async def ingest(self, count: int = 1 << 30) -> None:
        taken, self.stream = self.stream[:count], self.stream[count:]
        if taken:
            await self.bench.ingest.take([delivery("srv1", payload, self.clock.now()) for payload in taken])
            await self.receipts()

    async def receipts(self) -> None:
        await self.bench.receipts.flush()
        sent, self.bench.sender.sent = self.bench.sender.sent, []
        for _, verb, body in sent:
            for agent in self.agents:
                if verb == RECEIPT:
                    await agent.courier.on_receipt(body)
                elif verb == FORK:
                    await agent.courier.on_fork(body)


class RealCalls:
    """The calls of one agent, answered by the controller's inbox."""

    def __init__(self, world: RealWorld) -> None:
        self._world = world

    async def ledger(self, query: LedgerQuery) -> LedgerAnswer:
        return await self._world.inbox.answer("srv1", 1, query)

    async def ledger_batch(self, name: BatchName) -> bytes:
        asked = codec.encode(BatchRequest(epoch=name.epoch, seq=name.seq))
        try:
            return await self._world.inbox.on_ledger_batch("srv1", 1, asked)
        except BatchNotKept as refusal:
            raise RemoteRefusal(refusal.body()) from refusal


class Life:
    """One agent's story."""

    def __init__(self, directory: Path, world: RealWorld) -> None:
        self.world = world
        self.directory = directory
        (directory / "state").mkdir()
        self.xray = Xray("x0")
        self.starts_count = 1
        self.agent = self.born()
        self.backup: Path | None = None

    def born(self) -> Agent:
        agent = Agent(self.world, self.directory / "state", self.xray)
        agent.courier._calls = RealCalls(self.world)
        return agent

    async def move(self, client: str, up: int, down: int) -> None:
        self.world.move(self.xray, client, up, down)

    async def read(self) -> None:
        await self.agent.read()

    async def deliver(self) -> None:
        await self.agent.deliver()

    async def deliver_lost_ack(self) -> None:
        self.world.lose_next_ack = True
        await self.agent.deliver()

    async def ingest(self) -> None:
        await self.world.ingest(2)

    async def ingest_unacknowledged(self) -> None:
        """The controller dies between commit and acknowledgement: the stream gives everything again."""
        held = list(self.world.stream)
        await self.world.ingest()
        self.world.stream = held

    async def receipts(self) -> None:
        await self.world.receipts()

    async def reconnect(self) -> None:
        await self.agent.courier.on_connected()

    async def kill(self) -> None:
        self.agent.die()
        self.agent = self.born()

    async def hours_pass(self) -> None:
        self.world.clock.advance(3600)

    async def copy(self) -> None:
        self.backup = self.agent.copy_to(self.directory / "backup")

    async def roll_back(self) -> None:
        if self.backup is not None:
            self.agent.die()
            shutil.rmtree(self.directory / "state")
            shutil.copytree(self.backup, self.directory / "state")
            self.agent = self.born()

    async def wipe_broker(self) -> None:
        self.world.stream.clear()
        self.world.ids.clear()

    async def restart_xray(self) -> None:
        await self.agent.read()
        self.backup = None
        self.xray = Xray(f"x{self.starts_count}")
        self.starts_count += 1
        self.agent.spool.end_start(self.agent.xray.start_id)
        self.agent.xray = self.xray
        self.agent.spool.begin_start(self.xray.start_id, self.agent.clock.now_ms())

    async def save_ledger(self) -> None:
        await self.world.bench.database.close()
        shutil.copy2(self.world.path, self.directory / "saved.db")

    async def restore_ledger(self) -> None:
        """The agent's archive must not have been rolled back meanwhile."""
        saved = self.directory / "saved.db"
        if self.backup is None and saved.exists():
            await self.world.bench.database.close()
            shutil.copy2(saved, self.world.path)
            self.world.open()
            await self.agent.courier.on_connected()


async def counted(world: RealWorld) -> dict[int, tuple[int, int]]:
    return {ref: moved for ref, moved in (await world.bench.totals()).items() if moved != (0, 0)}


def moved(world: RealWorld) -> dict[int, tuple[int, int]]:
    sums: dict[int, tuple[int, int]] = {}
    for name, (up, down) in world.true.items():
        client = int(name[2:].partition(".")[0])
        before = sums.get(client, (0, 0))
        sums[client] = (before[0] + up, before[1] + down)
    return {ref: both for ref, both in sums.items() if both != (0, 0)}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lives") / "template.db"

    async def make() -> None:
        bench = LedgerBench(Database(f"sqlite+aiosqlite:///{path}"))
        await bench.database.migrate()
        await bench.add_server("srv1", INBOUNDS)
        await bench.add_clients(*CLIENTS)
        await bench.database.close()

    asyncio.run(make())
    return path


async def _live(template: Path, operations: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        world = RealWorld(shutil.copy2(template, directory / "ledger.db"))
        life = Life(directory, world)
        for operation, *arguments in operations:
            await getattr(life, operation)(*arguments)
        for agent in world.agents:
            agent.courier._calls = RealCalls(world)
        await heal(world)
        assert await counted(world) == moved(world)
        figures = life.agent.spool.figures()
        assert (figures.open_rows_count, figures.sealed_batches_count) == (0, 0)
        life.agent.spool.close()
        await world.bench.database.close()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(OPERATIONS)
def test_every_byte_is_counted_once_whatever_happens(template: Path, operations: list[tuple[Any, ...]]) -> None:
    asyncio.run(_live(template, operations))
