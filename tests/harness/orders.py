"""More servers for a world, each with an agent that beats on and answers orders."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from harness.controller import ADMIN
from harness.controller_fleet import SmallAgent, World, open_token, small_agent
from xfleet_contracts import codec, subjects
from xfleet_contracts.commands import Command
from xfleet_contracts.heartbeat import XrayState
from xfleet_contracts.installs import AgentUpdate, AgentUpdating
from xfleet_contracts.logs import LogLease, LogLines, LogText
from xfleet_controller.servers import service as servers
from xfleet_controller.servers.service import ServerNew

BEAT_EVERY_S = 0.6


@dataclass
class LivelyAgent:
    """Beats on; upgrades itself when told, well or badly."""

    agent: SmallAgent
    server_id: int
    version: str = "1.0.0"
    restarts_count: int = 0
    crashes: bool = False
    """After its next upgrade its Xray crashes."""
    beats: bool = True
    updates: list[str] = field(default_factory=list[str])

    async def update(self, command: Command) -> AgentUpdating:
        """Answers, then is the new version."""
        order = msgspec.json.decode(command.body, type=AgentUpdate)
        previous, self.version = self.version, order.version
        self.updates.append(order.version)
        return AgentUpdating(version=order.version, previous=previous)

    async def beat(self) -> None:
        """Tells what it runs."""
        status = "crashed" if self.crashes and self.updates else "running"
        xray = XrayState(status=status, version="26.1.1", start_id="x1", restarts_count=self.restarts_count)
        await self.agent.beat(xray=xray, agent_version=self.version, upgradable=True)

    async def run(self) -> None:
        """Beats for ever."""
        while True:
            if self.beats:
                await self.beat()
            await asyncio.sleep(BEAT_EVERY_S)


@asynccontextmanager
async def lively_agent(world: World, name: str) -> AsyncIterator[LivelyAgent]:
    """A new server with its agent."""
    context = world.controller.context
    made = await servers.create_server(context, ADMIN, ServerNew(name=name))
    token = msgspec.structs.replace(open_token(made.token), broker_urls=(world.broker.url,))
    async with small_agent(world, token=token) as agent:
        lively = LivelyAgent(agent, made.view.server.id)
        agent.verbs["agent.update"] = lively.update
        task = asyncio.ensure_future(lively.run())
        try:
            yield lively
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def wheel_order(version: str = "2.0.0") -> dict[str, Any]:
    """The body of an `agent.update`."""
    return {"version": version, "wheel": {"url": "https://panel.example/xfleet.whl", "sha256": "ab" * 32}}


class Log:
    """An agent's log: what was read and what is leased."""

    def __init__(self, agent: SmallAgent) -> None:
        self.agent = agent
        self.lines: tuple[str, ...] = ("first", "second")
        self.leases: list[LogLease] = []
        self.seq = 0
        agent.verbs |= {"logs.read": self.read, "log.lease": self.lease}

    async def read(self, _command: Command) -> LogText:
        return LogText(log="agent", lines=self.lines, size_bytes=1234)

    async def lease(self, command: Command) -> None:
        self.leases.append(msgspec.json.decode(command.body, type=LogLease))

    async def tell(self, *lines: str, **more: Any) -> None:
        self.seq += 1
        message = codec.encode(LogLines(seq=self.seq, lines=lines, **more))
        await self.agent.link.publish(subjects.log_lines(self.agent.sid, self.leases[-1].lease), message)
