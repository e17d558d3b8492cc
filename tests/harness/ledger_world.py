"""The courier's whole world in memory: Xray counters, a broker that forgets, a ledger, and an agent that is killed."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.agent import ModelLedger
from xfleet_agent import courier as courier_module
from xfleet_agent.courier import Courier
from xfleet_agent.events import Events
from xfleet_agent.fleet_clock import FleetClock
from xfleet_agent.spool import Spool
from xfleet_contracts import codec
from xfleet_contracts.receipt import Receipt
from xfleet_contracts.traffic import BatchName, LedgerAnswer, LedgerQuery
from xfleet_runtime.broker import RequestTimedOut
from xfleet_runtime.clock import FakeClock
from xfleet_runtime.ids import new_id


class InlineWorker:
    """Runs at once, on this thread."""

    async def run(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)


class Xray:
    """Counters that only grow."""

    def __init__(self, start_id: str) -> None:
        self.start_id = start_id
        self.counters: dict[str, tuple[int, int]] = {}

    def move(self, name: str, up: int, down: int) -> None:
        before = self.counters.get(name, (0, 0))
        self.counters[name] = (before[0] + up, before[1] + down)


class World:
    """Broker and ledger, shared by every agent of one server."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.stream: list[bytes] = []
        self.ids: set[str] = set()
        self.ledger = ModelLedger()
        self.live: dict[str, str] = {}
        """Instance to the start it drives, of agents the controller sees."""
        self.true: dict[str, tuple[int, int]] = {}
        self.lose_next_ack = False
        self.agents: list[Agent] = []

    def move(self, xray: Xray, name: str, up: int, down: int) -> None:
        """A client moves bytes."""
        xray.move(name, up, down)
        before = self.true.get(name, (0, 0))
        self.true[name] = (before[0] + up, before[1] + down)

    async def ingest(self, count: int = 1 << 30) -> None:
        """The controller commits what the stream holds."""
        taken, self.stream = self.stream[:count], self.stream[count:]
        for payload in taken:
            fork = self.ledger.take(payload)
            if fork is not None:
                for agent in self.agents:
                    await agent.courier.on_fork(fork)

    async def receipts(self) -> None:
        """Receipts reach every agent."""
        for receipt in self.ledger.receipts():
            for agent in self.agents:
                await agent.courier.on_receipt(receipt)

    def counted(self) -> dict[str, tuple[int, int]]:
        """What the ledger has, by counter."""
        return {f"c:{c}.{i}": moved for (c, i), moved in self.ledger.totals().items() if moved != (0, 0)}


class Link:
    """A link to this world's broker."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.connected = True

    async def publish_stored(self, subject: str, payload: bytes, *, message_id: str, stream: str) -> None:
        if message_id not in self._world.ids:
            self._world.ids.add(message_id)
            self._world.stream.append(payload)
        if self._world.lose_next_ack:
            self._world.lose_next_ack = False
            raise RequestTimedOut("lost")


class Ledger:
    """The calls of one agent."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def ledger(self, query: LedgerQuery) -> LedgerAnswer:
        answer = self._world.ledger.answer(query, pending_count=len(self._world.stream))
        owned = {start for instance, start in self._world.live.items() if instance != query.instance}
        return LedgerAnswer(
            pending_count=answer.pending_count,
            committed=answer.committed,
            foreign=answer.foreign,
            owned_elsewhere=tuple(sorted(owned & set(query.starts))),
        )

    async def ledger_batch(self, name: BatchName) -> bytes:
        return self._world.ledger.bodies[name.epoch, name.seq]


class Agent:
    """One agent process: a spool on disk, and a courier that is driven step by step."""

    def __init__(self, world: World, directory: Path, xray: Xray) -> None:
        courier_module.DISPUTE_S = -1.0
        self.world = world
        self.directory = directory
        self.xray = xray
        self.instance = new_id()
        self.clock = FleetClock(world.clock)
        self.spool = Spool(directory / "spool.db", now_ms=self.clock.now_ms())
        self.events = Events(self.clock)
        self.spool.begin_start(xray.start_id, self.clock.now_ms())
        self.spool.end_starts_except((xray.start_id,))
        world.agents.append(self)
        world.live[self.instance] = self.spool.start_of(xray.start_id)
        self.courier = Courier(
            sid="srv1", instance=self.instance, spool=self.spool, worker=InlineWorker(), link=Link(world),
            calls=Ledger(world), clock=self.clock, events=self.events, read_meter=self.read,
            xrays=lambda: [self.xray],
        )  # fmt: skip

    async def read(self) -> None:
        self.spool.add_reading(self.xray.start_id, self.clock.now_ms(), dict(self.xray.counters))

    async def settle(self) -> bool:
        return await self.courier._settle()

    async def deliver(self) -> None:
        """One round: settle when needed, seal, publish."""
        if not self.courier.settled and not await self.settle():
            return
        await self.courier.seal()
        self.courier._publish_after_s = 0.0
        self.courier._not_before_s.clear()
        with suppress(RequestTimedOut):
            await self.courier._publish_all()

    def die(self) -> None:
        """kill -9."""
        self.spool.close()
        self.world.agents.remove(self)
        self.world.live.pop(self.instance, None)

    def copy_to(self, directory: Path) -> Path:
        """The state directory as a backup has it."""
        if directory.exists():
            shutil.rmtree(directory)
        directory.mkdir()
        target = directory / "spool.db"
        self.spool.db.execute("VACUUM INTO ?", (str(target),))
        return directory


async def heal(world: World) -> None:
    """Lets everything arrive that can."""
    world.lose_next_ack = False
    for _ in range(12):
        world.ids.clear()  # the broker's window of duplicates has passed
        for agent in list(world.agents):
            world.live[agent.instance] = agent.spool.start_of(agent.xray.start_id)
            await agent.read()
            await agent.courier.on_connected()
            await world.ingest()
            await agent.deliver()
        await world.ingest()
        await world.receipts()


def receipt_of(payload: bytes, epoch: str, seq: int) -> Receipt:
    """A receipt for exactly this batch."""
    return Receipt(epoch=epoch, committed_through=seq, digest=codec.sha256_hex(payload))
