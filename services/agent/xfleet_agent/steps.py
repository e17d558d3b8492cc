"""Carries out the steps of a plan over Xray's API; decides nothing, and says which entities Xray refused."""

import asyncio
import json
from collections.abc import Awaitable, Iterable, Sequence
from time import monotonic

from xfleet_agent.plan import (
    AddClient,
    AddInbound,
    AddOutbound,
    RemoveClient,
    RemoveInbound,
    RemoveOutbound,
    SetRules,
    Shape,
    Step,
)
from xfleet_agent.processes import RunningXray
from xfleet_contracts.desired_state import EntityKey
from xfleet_contracts.errors import Refusal
from xfleet_xraykit.counters import inbound_tag
from xfleet_xraykit.errors import RuleNeedsRestart
from xfleet_xraykit.problems import EntityProblem
from xfleet_xraykit.render import render_inbound, render_outbounds
from xfleet_xraykit.state import State

IN_FLIGHT = 64
MANY_CUTS = 8
BLOCK_KEPT_S = 3600.0


class Blocks:
    """Which emails a running Xray lets out no more, and since when."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._start_id = ""

    async def load(self, running: RunningXray) -> None:
        """Reads them from an Xray this object did not know yet."""
        if running.start_id != self._start_id:
            self._since = dict.fromkeys(await running.api.blocked_users(), monotonic())
            self._start_id = running.start_id

    async def block(self, running: RunningXray, emails: Sequence[str]) -> None:
        """Ends new streams of these clients, also on multiplexed connections."""
        fresh = [email for email in emails if email not in self._since]
        if not fresh:
            return
        if len(fresh) > MANY_CUTS or not running.rules_known:
            rules = [json.loads(rule) for rule in running.shape.rules]
            try:
                await running.api.set_rules(rules, blocked=[*self._since, *fresh])
                running.rules_known = True
            except RuleNeedsRestart:
                await self._block_each(running, fresh)
        else:
            await self._block_each(running, fresh)
        self._since.update(dict.fromkeys(fresh, monotonic()))

    @staticmethod
    async def _block_each(running: RunningXray, emails: Iterable[str]) -> None:
        for email in emails:
            await running.api.block_user(email)

    async def unblock(self, running: RunningXray, emails: Iterable[str]) -> None:
        """Lets these clients out again."""
        for email in [each for each in emails if each in self._since]:
            await running.api.unblock_user(email)
            del self._since[email]

    async def drop_old(self, running: RunningXray, keep: frozenset[str]) -> None:
        """Forgets blocks of clients that are gone for good; their last multiplexed connections are long over."""
        limit = monotonic() - BLOCK_KEPT_S
        await self.unblock(running, [e for e, since in self._since.items() if since < limit and e not in keep])


class Execution:
    """One plan against one Xray."""

    def __init__(self, running: RunningXray, state: State, wanted: Shape, blocks: Blocks) -> None:
        self._running = running
        self._state = state
        self._wanted = wanted
        self._blocks = blocks
        self._outbounds = {str(each["tag"]): each for each in render_outbounds(state.outbounds)}
        self.problems: list[EntityProblem] = []
        """What Xray refused, in its own words."""

    async def run(self, steps: Sequence[Step]) -> None:
        """All steps in their order. Raises `XrayDown`, `XrayHung` or `RuleNeedsRestart`."""
        removals = [step for step in steps if isinstance(step, RemoveClient)]
        await self._blocks.block(self._running, [step.email for step in removals if step.cut])
        users = self._running.shape.users
        await self._many([self._remove_client(step) for step in removals if step.email in users.get(step.inbound, {})])
        for step in steps:
            await self._structural(step)
        additions = [step for step in steps if isinstance(step, AddClient)]
        await self._many([self._add_client(step) for step in additions])
        back = [step.email for step in additions]
        for step in steps:
            if isinstance(step, AddInbound):
                back.extend(self._wanted.users.get(step.inbound, {}))
        await self._blocks.unblock(self._running, back)

    async def _many(self, calls: Sequence[Awaitable[object]]) -> None:
        gate = asyncio.Semaphore(IN_FLIGHT)

        async def one(call: Awaitable[object]) -> None:
            async with gate:
                await call

        await asyncio.gather(*(one(call) for call in calls))

    async def _structural(self, step: Step) -> None:
        api = self._running.api
        match step:
            case RemoveInbound(ref):
                await api.remove_inbound(inbound_tag(ref))
            case RemoveOutbound(tag):
                await api.remove_outbound(tag)
            case AddOutbound(tag):
                await self._guarded(EntityKey(kind="outbound", id=tag), api.add_outbound(self._outbounds[tag]))
            case SetRules():
                await self._set_rules()
            case AddInbound(ref):
                config = render_inbound(self._state.inbounds[ref], self._state.clients_of(ref))
                await self._guarded(EntityKey(kind="inbound", id=str(ref)), api.add_inbound(config))
            case _:
                pass

    async def _set_rules(self) -> None:
        rules = [json.loads(rule) for rule in self._wanted.rules]
        try:
            await self._running.api.set_rules(rules)
            self._running.rules_known = True
        except RuleNeedsRestart:
            raise
        except Refusal as refusal:
            self.problems += [_problem(EntityKey(kind="rule", id=tag), refusal) for tag, _ in self._state.rules]

    async def _remove_client(self, step: RemoveClient) -> None:
        await self._running.api.remove_user(inbound_tag(step.inbound), step.email)

    async def _add_client(self, step: AddClient) -> None:
        body = self._state.inbounds[step.inbound]
        account = self._wanted.users[step.inbound][step.email]
        call = self._running.api.add_user(inbound_tag(step.inbound), body.protocol, step.email, account)
        await self._guarded(EntityKey(kind="client", id=step.email), call)

    async def _guarded(self, key: EntityKey, call: Awaitable[object]) -> None:
        try:
            await call
        except Refusal as refusal:
            self.problems.append(_problem(key, refusal))


def _problem(key: EntityKey, refusal: Refusal) -> EntityProblem:
    if "bind:" in refusal.text or "address already in use" in refusal.text:
        return EntityProblem(key, "port", "port_busy", refusal.text)
    return EntityProblem(key, "", refusal.code, refusal.text)
