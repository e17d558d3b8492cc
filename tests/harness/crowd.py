"""Many simulated agents on a real broker and controller, in a process of their own; also that process's program."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.controller import ADMIN, WEBSOCKET
from harness.controller_fleet import SmallAgent, World, open_token, small_agent
from xfleet_contracts.enrollment import EnrollmentToken
from xfleet_contracts.heartbeat import HEARTBEAT_INTERVAL_S
from xfleet_controller.context import Context
from xfleet_controller.inbounds.service import InboundNew, create_inbound
from xfleet_controller.servers.service import ServerNew, create_server

READY = b"ready\n"
ENROLLING_AT_ONCE = 8


async def add_servers(world: World, count: int) -> list[EnrollmentToken]:
    """Servers that wait for their agents; the token of each."""
    tokens: list[EnrollmentToken] = []
    for number in range(count):
        made = await create_server(world.controller.context, ADMIN, ServerNew(name=f"s{number:03}"))
        tokens.append(msgspec.structs.replace(open_token(made.token), broker_urls=(world.broker.url,)))
    return tokens


async def add_inbounds(context: Context) -> list[int]:
    """One inbound on every server that was added; their ids."""
    ids: list[int] = []
    async with context.database.read() as session:
        from sqlalchemy import select

        from xfleet_controller.servers.models import Server

        servers = (await session.scalars(select(Server.id).where(Server.slug != "local"))).all()
    for server_id in servers:
        view, _ = await create_inbound(context, ADMIN, InboundNew(server_id=server_id, **WEBSOCKET))
        ids.append(view.row.id)
    return ids


class Beating(SmallAgent):
    """Beats right after every apply, as agents do."""

    async def _apply(self, command: Any) -> Any:
        reply = await super()._apply(command)
        self._soon = asyncio.ensure_future(self.beat())
        return reply


async def act(tokens: list[EnrollmentToken]) -> None:
    """Enrolls, tells that all are there, and beats until the process is ended."""
    async with AsyncExitStack() as stack:
        gate = asyncio.Semaphore(ENROLLING_AT_ONCE)

        async def enter(token: EnrollmentToken) -> SmallAgent:
            async with gate:
                agent = await stack.enter_async_context(small_agent(None, token=token))  # type: ignore[arg-type]
            agent.__class__ = Beating
            return agent

        agents = await asyncio.gather(*map(enter, tokens))
        sys.stdout.buffer.write(READY)
        sys.stdout.flush()
        while True:
            for agent in agents:
                await agent.beat()
                await asyncio.sleep(HEARTBEAT_INTERVAL_S / 4 / len(agents))


@asynccontextmanager
async def running_crowd(tokens: list[EnrollmentToken], directory: Path) -> AsyncIterator[None]:
    """All these agents, enrolled and beating, in a process of their own."""
    file = directory / "tokens.json"
    file.touch(mode=0o600)
    file.write_bytes(msgspec.json.encode(tokens))
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, str(file), stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(120):
            while (line := await process.stdout.readline()) != READY:
                assert line, "the crowd ended"
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


if __name__ == "__main__":
    asyncio.run(act(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=list[EnrollmentToken])))
