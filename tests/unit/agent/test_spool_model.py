"""Random lives of an agent against a model ledger: whatever happens, every byte is counted once."""

import asyncio
import copy
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.ledger_world import Agent, World, Xray, heal

CLIENT = st.sampled_from(["c:1.10", "c:2.10", "c:2.11"])
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("move"), CLIENT, st.integers(0, 1000), st.integers(0, 1000)),
        st.tuples(st.just("read")),
        st.tuples(st.just("deliver")),
        st.tuples(st.just("deliver_lost_ack")),
        st.tuples(st.just("ingest"), st.integers(1, 3)),
        st.tuples(st.just("receipts")),
        st.tuples(st.just("reconnect")),
        st.tuples(st.just("kill")),
        st.tuples(st.just("hours_pass")),
        st.tuples(st.just("copy")),
        st.tuples(st.just("roll_back")),
        st.tuples(st.just("wipe_broker")),
        st.tuples(st.just("restart_xray")),
        st.tuples(st.just("restore_ledger")),
        st.tuples(st.just("save_ledger")),
    ),
    max_size=60,
)


class Life:
    """One agent's story."""

    def __init__(self, directory: Path) -> None:
        self.world = World()
        self.directory = directory
        (directory / "state").mkdir()
        self.xray = Xray("x0")
        self.starts_count = 1
        self.agent = Agent(self.world, directory / "state", self.xray)
        self.backup: Path | None = None
        self.saved_ledger = copy.deepcopy(self.world.ledger)

    async def step(self, name: str, *arguments: object) -> None:
        await getattr(self, name)(*arguments)

    async def move(self, client: str, up: int, down: int) -> None:
        self.world.move(self.xray, client, up, down)

    async def read(self) -> None:
        await self.agent.read()

    async def deliver(self) -> None:
        await self.agent.deliver()

    async def deliver_lost_ack(self) -> None:
        self.world.lose_next_ack = True
        await self.agent.deliver()

    async def ingest(self, count: int) -> None:
        await self.world.ingest(count)

    async def receipts(self) -> None:
        await self.world.receipts()

    async def reconnect(self) -> None:
        await self.agent.courier.on_connected()

    async def kill(self) -> None:
        self.agent.die()
        self.agent = Agent(self.world, self.directory / "state", self.xray)

    async def hours_pass(self) -> None:
        self.world.clock.advance(3600)

    async def copy(self) -> None:
        self.backup = self.agent.copy_to(self.directory / "backup")

    async def roll_back(self) -> None:
        """Only exact while this Xray lives: bytes of an ended one may have been in the newer state alone."""
        if self.backup is None:
            return
        self.agent.die()
        shutil.rmtree(self.directory / "state")
        shutil.copytree(self.backup, self.directory / "state")
        self.agent = Agent(self.world, self.directory / "state", self.xray)

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
        self.saved_ledger = copy.deepcopy(self.world.ledger)

    async def restore_ledger(self) -> None:
        """A database restored from its backup. Its archive must not have been rolled back meanwhile."""
        if self.backup is None:
            self.world.ledger = copy.deepcopy(self.saved_ledger)
            await self.agent.courier.on_connected()


async def _live(operations: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        life = Life(Path(name))
        for operation in operations:
            await life.step(*operation)  # type: ignore[arg-type]
        await heal(life.world)
        expected = {client: moved for client, moved in life.world.true.items() if moved != (0, 0)}
        assert life.world.counted() == expected
        figures = life.agent.spool.figures()
        assert (figures.open_rows_count, figures.sealed_batches_count) == (0, 0)
        life.agent.spool.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(OPERATIONS)
def test_every_byte_is_counted_once_whatever_happens(operations: list[tuple[object, ...]]) -> None:
    asyncio.run(_live(operations))


async def test_a_copied_state_directory_doubles_nothing_and_is_told(tmp_path: Path) -> None:
    world, first = World(), Xray("x0")
    (tmp_path / "a").mkdir()
    a = Agent(world, tmp_path / "a", first)
    world.move(first, "c:1.10", 1000, 0)
    await a.read()
    a.copy_to(tmp_path / "b")
    second = Xray("y0")
    b = Agent(world, tmp_path / "b", second)
    world.move(first, "c:1.10", 10, 0)
    world.move(second, "c:1.10", 7, 0)
    await heal(world)
    assert world.counted() == {"c:1.10": (1017, 0)}
    assert any(event.type == "cloned" for event in b.events._waiting)


async def test_a_copy_that_delivered_first_leaves_the_original_nothing_to_double(tmp_path: Path) -> None:
    world, first = World(), Xray("x0")
    (tmp_path / "a").mkdir()
    a = Agent(world, tmp_path / "a", first)
    world.move(first, "c:1.10", 1000, 5)
    await a.read()
    a.copy_to(tmp_path / "b")
    world.agents.remove(a)
    world.live.clear()
    b = Agent(world, tmp_path / "b", Xray("y0"))
    await heal(world)
    assert world.counted() == {"c:1.10": (1000, 5)}
    b.die()
    world.agents.append(a)
    world.move(first, "c:1.10", 1, 1)
    await heal(world)
    assert world.counted() == {"c:1.10": (1001, 6)}
    assert any(event.type == "state_rolled_back" for event in a.events._waiting)


async def test_a_machine_forked_with_its_memory_loses_and_doubles_nothing(tmp_path: Path) -> None:
    world, first = World(), Xray("x0")
    (tmp_path / "a").mkdir()
    a = Agent(world, tmp_path / "a", first)
    world.move(first, "c:1.10", 1000, 0)
    await heal(world)
    a.copy_to(tmp_path / "b")
    second = copy.deepcopy(first)
    b = Agent(world, tmp_path / "b", second)
    b.spool.epoch = a.spool.epoch
    world.move(first, "c:1.10", 10, 0)
    await heal_one(world, a)
    world.move(second, "c:1.10", 200, 0)
    await heal(world)
    world.move(first, "c:1.10", 3, 0)
    world.move(second, "c:1.10", 4, 0)
    await heal(world)
    assert world.counted() == {"c:1.10": (1217, 0)}
    assert any(event.type == "agent_forked" for event in b.events._waiting)


async def heal_one(world: World, agent: Agent) -> None:
    """Only this agent delivers."""
    others = [each for each in world.agents if each is not agent]
    for each in others:
        world.agents.remove(each)
    await heal(world)
    world.agents.extend(others)


async def test_a_fork_found_by_the_ledger_is_sealed_again_under_a_new_epoch(tmp_path: Path) -> None:
    world, first = World(), Xray("x0")
    (tmp_path / "a").mkdir()
    a = Agent(world, tmp_path / "a", first)
    await a.settle()
    a.copy_to(tmp_path / "b")
    second = copy.deepcopy(first)
    b = Agent(world, tmp_path / "b", second)
    b.spool.epoch = a.spool.epoch
    b.courier._settled = True
    world.move(first, "c:1.10", 10, 0)
    world.move(second, "c:1.10", 200, 0)
    for each in (a, b):
        await each.read()
        await each.deliver()
    await world.ingest()
    assert len(world.ledger.forks) == 1
    await heal(world)
    assert world.counted() == {"c:1.10": (210, 0)}


async def test_an_xray_that_crashed_a_hundred_times_while_the_bus_was_gone_is_counted_once(tmp_path: Path) -> None:
    world = World()
    (tmp_path / "a").mkdir()
    agent = Agent(world, tmp_path / "a", Xray("x000"))
    for number in range(1, 130):
        world.move(agent.xray, "c:1.10", 1, 1)
        await agent.read()
        agent.spool.end_start(agent.xray.start_id)
        agent.xray = Xray(f"x{number:03}")
        agent.spool.begin_start(agent.xray.start_id, agent.clock.now_ms())
    await heal(world)
    assert world.counted() == {"c:1.10": (129, 129)}
