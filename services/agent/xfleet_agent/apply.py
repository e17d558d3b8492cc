"""Apply: brings the running Xray to the wanted state, refuses single entities instead of everything, and verifies.

One convergence at a time. Each round compares what should run with what runs and carries out the difference; what Xray
refuses falls back to its last good version, which the next round puts back. Whatever dies in between, the next
convergence starts from what really runs.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping

import msgspec

from xfleet_agent.cuts import cut_clients
from xfleet_agent.database import Worker
from xfleet_agent.desired import client_of, degraded_list, effective, refusals_stand, refuse, settle_by_lint
from xfleet_agent.events import Events
from xfleet_agent.lean import give_back_memory
from xfleet_agent.plan import (
    AddClient,
    AddInbound,
    AddOutbound,
    Replace,
    Shape,
    Step,
    after,
    config_digest,
    plan,
    shape_of,
)
from xfleet_agent.prints import Edits, Prints
from xfleet_agent.processes import RunningXray
from xfleet_agent.quick import QuickPath, find_change
from xfleet_agent.state import Entities, Refused, StateStore
from xfleet_agent.steps import Blocks, Execution
from xfleet_agent.trials import Program
from xfleet_agent.xray import UNCONVERGED, XrayDriver
from xfleet_contracts.apply import Degraded
from xfleet_contracts.desired_state import EntityKey
from xfleet_xraykit.accounts import Account
from xfleet_xraykit.counters import inbound_tag, parse_inbound_tag
from xfleet_xraykit.errors import ConfigRefused, InboundUnknown, RuleNeedsRestart, XrayDown, XrayHung, XrayRefused
from xfleet_xraykit.problems import EntityProblem
from xfleet_xraykit.state import State, typed_state
from xfleet_xraykit.validate import REFUSED, validate

MAX_ROUNDS = 5
CRASHES_TO_REVERT = 3
IN_PROGRESS = "in_progress"
UNKNOWN = b"unknown"
"""In place of what only a new process can change: whatever is wanted, it differs."""
RETRIED = frozenset({"port_busy"})
"""Refusals that are not the entity's fault, and are tried again with every full convergence."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a convergence did."""

    steps_count: int = 0
    replaced: bool = False
    drifted: bool = False
    """Whether Xray ran something else than we left there."""


class Applier:
    """Keeps Xray at what is wanted."""

    def __init__(
        self, store: StateStore, worker: Worker, driver: XrayDriver, events: Events, *, probation_s: float
    ) -> None:
        self._store = store
        self._worker = worker
        self._driver = driver
        self._events = events
        self._probation_s = probation_s
        self._lock = asyncio.Lock()
        self._blocks = Blocks()
        self._prints = Prints(store, worker)
        self._quick: QuickPath | None = None
        self._crashes: list[float] = []
        self._changed_at = time.monotonic()
        self._unproven = _configuration(store.applied) != store.load_good()
        self.wake = asyncio.Event()
        """Set when something should be brought in line soon."""
        self.degraded: tuple[Degraded, ...] = ()

    # What to start with

    async def boot_state(self) -> State:
        """The last good configuration with today's clients; before any was proven, what ran last."""
        good = await self._worker.run(self._store.load_good)
        return self._startable(good or self._store.applied)

    async def restart_state(self) -> State:
        """What ran when Xray died; after a revert that is the last good configuration."""
        return self._startable(self._store.applied)

    def _startable(self, base: Entities) -> State:
        now = effective(self._store.wanted, self._store.applied, self._store.refusals, cut_clients(self._store.cuts))
        bodies = {key: body for key, body in base.items() if key.kind != "client"}
        bodies |= {key: body for key, body in now.items() if key.kind == "client"}
        return typed_state(bodies)

    async def adopted_shape(self) -> Shape:
        """What an adopted Xray runs as far as the disk knows; what was being changed is unknown.

        One that was started and never brought in line runs what it was started with, which need not be `applied`: it
        is believed only where both are the same configuration, and else replaced.
        """
        shape = shape_of(typed_state(self._store.applied))
        started_with = self._store.fact(UNCONVERGED)
        if started_with and started_with != config_digest(shape):
            return Shape(fixed=UNKNOWN)
        unknown = [ref for ref in self._store.fact(IN_PROGRESS).split() if ref]
        inbounds = dict(shape.inbounds) | {int(ref): b"" for ref in unknown}
        users = Shape().users if started_with else shape.users
        return Shape(inbounds=inbounds, users=users, outbounds=shape.outbounds, rules=shape.rules, fixed=shape.fixed)

    async def hand_over(self, new: RunningXray, program: Program) -> None:
        """Makes a tried out Xray the serving one, between two convergences; what the old one refused is tried again.

        Raises `XrayDown` when there is nothing to hand over to any more.
        """
        async with self._lock:
            await self._driver.hand_over(new, program)
            kept = [each for each in self._store.refusals.values() if each.code != REFUSED]
            await self._worker.run(self._store.save_refusals, kept)
        self.wake.set()

    # Convergence

    @property
    def _knows_nothing(self) -> bool:
        """Whether no state ever came here, as after a damaged file: what an adopted Xray serves is then left alone."""
        return self._store.wanted_point.revision == 0 and not self._store.wanted

    async def converge(self, *, full: bool = False) -> Outcome:
        """Brings Xray in line; `full` asks Xray about every user instead of those that changed.

        Raises `XrayDown` or `XrayHung` when there is no Xray to talk to.
        """
        async with self._lock:
            self.wake.clear()
            if self._knows_nothing:
                return Outcome()
            outcome = None if full else await self._quickly()
            if outcome is not None:
                return outcome
            self._quick = None
            known = self._store.refusals
            if full:
                known = {key: each for key, each in known.items() if each.code not in RETRIED}
            bodies, refusals = settle_by_lint(
                self._store.wanted, self._store.applied, known, cut_clients(self._store.cuts)
            )
            fresh = await self._ask_xray(bodies, refusals)
            if fresh:
                refusals |= fresh
                bodies = self._effective(refusals)
            outcome, bodies, refusals = await self._rounds(bodies, refusals, full=full)
            await self._save(bodies, refusals)
            running = self._running()
            self._quick = QuickPath(running.start_id, typed_state(_configuration(bodies)).inbounds, bodies)
            give_back_memory()
            return outcome

    async def _quickly(self) -> Outcome | None:
        """Carries out a change of a few clients without looking at all the others; None when it is more than that."""
        running, quick, store = self._running(), self._quick, self._store
        if quick is None or quick.start_id != running.start_id or not refusals_stand(store.wanted, store.refusals):
            return None
        bodies = effective(store.wanted, store.applied, store.refusals, cut_clients(store.cuts))
        change = find_change(bodies, store.applied)
        if change is None or any(key in store.refusals for key in change.put):
            return None
        steps_count = await quick.carry_out(running, change, self._blocks)
        if steps_count is None:
            return None
        if change.put or change.gone or store.applied_point != store.wanted_point:
            await self._worker.run(store.change_applied, store.wanted_point, change.put, list(change.gone))
        quick.applied_is(store.applied)
        return Outcome(steps_count=steps_count)

    async def check_drift(self) -> Outcome | None:
        """Asks Xray about every user; brings it in line when it runs something else than we left there."""
        async with self._lock:
            running = self._running()
            if self._knows_nothing:
                return None
            seen = await self._observe(
                running, full=True, touched=frozenset(), edits=await self._prints.find_edits(running)
            )
            in_order = self._quick is not None and not plan(running.shape, seen)
        retried = any(each.code in RETRIED for each in self._store.refusals.values())
        return None if in_order and not retried else await self.converge(full=True)

    def _effective(self, refusals: Mapping[EntityKey, Refused]) -> Entities:
        return effective(self._store.wanted, self._store.applied, refusals, cut_clients(self._store.cuts))

    async def _ask_xray(self, bodies: Entities, refusals: Mapping[EntityKey, Refused]) -> dict[EntityKey, Refused]:
        """What Xray says about new configuration before anything that runs is touched."""
        new = {
            key: body
            for key, body in bodies.items()
            if key.kind != "client" and body != self._store.applied.get(key) and key not in refusals
        }
        if not new:
            return {}
        try:
            processes = self._driver.processes
            problems = await validate(processes.launcher, processes.probe_config(typed_state(new)))
        except ConfigRefused as refusal:
            problems = [EntityProblem(key, "", refusal.code, refusal.text) for key in new]
        return refuse(new, problems)

    async def _rounds(
        self, bodies: Entities, refusals: dict[EntityKey, Refused], *, full: bool
    ) -> tuple[Outcome, Entities, dict[EntityKey, Refused]]:
        steps_count, replaced, drifted = 0, False, False
        hopeless: set[EntityKey] = set()  # their last good version is refused now, too
        state, wanted = typed_state(bodies), Shape()
        steps: tuple[Step, ...] = ()
        made: list[Step] = []
        for number in range(MAX_ROUNDS):
            running = self._running()
            wanted = shape_of(state)
            edits = await self._prints.find_edits(running) if full and number == 0 else Edits()
            seen = await self._observe(running, full=full or number > 0, touched=_touched(steps), edits=edits)
            drifted = drifted or (full and number == 0 and bool(plan(running.shape, seen)))
            running.shape = seen
            steps = plan(wanted, seen)
            if not steps:
                break
            steps_count += len(steps)
            made.extend(steps)
            problems, was_replaced = await self._carry_out(running, state, wanted, steps)
            replaced = replaced or was_replaced
            if problems:
                hopeless.update(problem.key for problem in problems if problem.key in refusals)
                refusals |= refuse({k: b for k, b in bodies.items() if k not in refusals}, problems)
                bodies = {key: body for key, body in self._effective(refusals).items() if key not in hopeless}
                state = typed_state(bodies)
        else:
            refusals |= refuse(bodies, _left_over(steps))
        self._running().shape = wanted
        await self._learn(made)
        return Outcome(steps_count=steps_count, replaced=replaced, drifted=drifted), bodies, refusals

    async def _learn(self, made: list[Step]) -> None:
        """Remembers how it looks what we have just configured."""
        running = self._running()
        inbounds = {step.inbound for step in made if isinstance(step, AddInbound)}
        outbounds = {step.tag for step in made if isinstance(step, AddOutbound)}
        if inbounds or outbounds or not self._prints.knows(running.start_id):
            await self._prints.learn(running, inbounds, outbounds)

    async def _carry_out(
        self, running: RunningXray, state: State, wanted: Shape, steps: tuple[Step, ...]
    ) -> tuple[list[EntityProblem], bool]:
        if any(isinstance(step, Replace) for step in steps):
            return await self._replace(state), True
        changing = " ".join(str(ref) for ref in sorted(_inbounds_in(steps)))
        if changing:
            await self._worker.run(self._store.save_facts, **{IN_PROGRESS: changing})
        await self._blocks.load(running)
        execution = Execution(running, state, wanted, self._blocks)
        try:
            await execution.run(steps)
        except RuleNeedsRestart:
            return await self._replace(state), True
        running.shape = after(running.shape, wanted, steps, {problem.key for problem in execution.problems})
        return execution.problems, False

    async def _replace(self, state: State) -> list[EntityProblem]:
        """Hands over to a new Xray; when it does not come up, what cannot be changed hot is refused."""
        try:
            await self._driver.replace(state)
        except (XrayDown, XrayHung) as error:
            reason = f"Xray does not start with this: {self._driver.processes.tail() or error}"
            keys = [EntityKey(kind="settings", id="xray")]
            keys += [EntityKey(kind="rule", id=tag) for tag, _ in state.rules]
            keys += [EntityKey(kind="outbound", id=each.tag) for each in state.outbounds]
            return [
                EntityProblem(key, "", "does_not_start", reason)
                for key in keys
                if self._store.wanted.get(key) != self._store.applied.get(key)
            ]
        return []

    async def _observe(self, running: RunningXray, *, full: bool, touched: frozenset[int], edits: Edits) -> Shape:
        """What really runs: inbounds by tag, users as asked for, the rest as we left it but for these edits."""
        shape = edits.seen_in(running.shape)
        refs = {ref for tag in await running.api.list_inbounds() if (ref := parse_inbound_tag(tag)) is not None}
        users: dict[int, Mapping[str, Account]] = {}
        for ref in refs:
            known = shape.users.get(ref)
            if known is not None and not (full and (not touched or ref in touched)):
                users[ref] = known
                continue
            try:
                users[ref] = await running.api.inbound_users(inbound_tag(ref))
            except (InboundUnknown, XrayRefused):
                users[ref] = {}
        inbounds = {ref: shape.inbounds.get(ref, b"") for ref in refs}
        return Shape(inbounds=inbounds, users=users, outbounds=shape.outbounds, rules=shape.rules, fixed=shape.fixed)

    def _running(self) -> RunningXray:
        if self._driver.current is None:
            raise XrayDown(self._driver.last_error or "Xray does not run.")
        return self._driver.current

    async def _save(self, bodies: Entities, refusals: Mapping[EntityKey, Refused]) -> None:
        old, point = self._store.applied, self._store.wanted_point
        configuration_changed = _configuration(old) != _configuration(bodies)
        if bodies != old or point != self._store.applied_point:
            await self._worker.run(self._store.save_applied, point, bodies)
        await self._worker.run(self._store.save_refusals, list(refusals.values()))
        done = {name: "" for name in (IN_PROGRESS, UNCONVERGED) if self._store.fact(name)}
        if done:
            await self._worker.run(lambda: self._store.save_facts(**done))
        if configuration_changed:
            self._changed_at = time.monotonic()
            self._crashes.clear()
            self._unproven = True
        self.degraded = degraded_list(refusals, bodies)

    # Probation

    async def on_died(self) -> None:
        """Xray died; three times within the probation of new configuration, and it is taken back."""
        now = time.monotonic()
        self._crashes.append(now)
        recent = [at for at in self._crashes if at - self._changed_at <= self._probation_s]
        if not self._unproven or len(recent) < CRASHES_TO_REVERT:
            return
        good = await self._worker.run(self._store.load_good)
        applied = self._store.applied
        culprits = [key for key, body in _configuration(applied).items() if good.get(key) != body]
        problems = [
            EntityProblem(key, "", "xray_crashed", "Xray crashed three times within a minute after this change.")
            for key in culprits
        ]
        refusals = {**self._store.refusals, **refuse(applied, problems)}
        kept = {key: body for key, body in applied.items() if key.kind == "client"}
        await self._worker.run(self._store.save_applied, self._store.applied_point, {**good, **kept})
        await self._worker.run(self._store.save_refusals, list(refusals.values()))
        self.degraded = degraded_list(refusals, self._store.applied)
        self._unproven = False
        self._crashes.clear()
        self._events.tell("apply_reverted", culprits=[f"{key.kind} {key.id}" for key in culprits])

    async def prove(self) -> None:
        """Calls the running configuration good once it lived through its probation."""
        if self._unproven and time.monotonic() - self._changed_at > self._probation_s:
            await self._worker.run(self._store.save_good, _configuration(self._store.applied))
            self._unproven = False
            self._crashes.clear()

    async def tidy(self) -> None:
        """Drops block rules that nobody needs any more."""
        running = self._driver.current
        if running is not None:
            await self._blocks.load(running)
            cut = cut_clients(self._store.cuts)
            wanted = self._store.wanted
            keep = frozenset(key.id for key in wanted if key.kind == "client" and client_of(key) in cut)
            await self._blocks.drop_old(running, keep)


def _configuration(entities: Entities) -> Entities:
    return {key: body for key, body in entities.items() if key.kind != "client"}


def _inbounds_in(steps: Iterable[Step]) -> set[int]:
    return {step.inbound for step in steps if isinstance(step, AddInbound)}


def _touched(steps: tuple[Step, ...]) -> frozenset[int]:
    return frozenset(ref for step in steps if (ref := getattr(step, "inbound", None)) is not None)


def _left_over(steps: Iterable[Step]) -> list[EntityProblem]:
    """Entities that are still not as wanted after several tries."""
    reason = "Xray took the change but does not show it."
    keys = [EntityKey(kind="client", id=step.email) for step in steps if isinstance(step, AddClient)]
    keys += [EntityKey(kind="inbound", id=str(step.inbound)) for step in steps if isinstance(step, AddInbound)]
    return [EntityProblem(key, "", "not_applied", reason) for key in keys]
