"""Fingerprints of what we configured, so that an inbound or outbound edited by hand is told from our own.

They are kept on disk with the start of the Xray they belong to: an edit made while no agent ran is found as well.
"""

import json
from collections.abc import Collection, Mapping
from typing import NamedTuple

import msgspec

from xfleet_agent.database import Worker
from xfleet_agent.plan import Shape
from xfleet_agent.processes import RunningXray
from xfleet_agent.state import StateStore
from xfleet_xraykit.counters import inbound_tag, parse_inbound_tag

FACT = "prints"


class _Known(msgspec.Struct, frozen=True, kw_only=True):
    start_id: str = ""
    inbounds: dict[str, str] = {}
    """By tag."""
    outbounds: dict[str, str] = {}


class Edits(NamedTuple):
    """What is not as we left it."""

    inbounds: frozenset[int] = frozenset()
    outbounds: frozenset[str] = frozenset()
    missing_outbounds: frozenset[str] = frozenset()
    rules: bool = False
    """Whether one of our routing rules is gone."""

    def seen_in(self, shape: Shape) -> Shape:
        """The shape with what was edited shown as unknown."""
        return Shape(
            inbounds={ref: b"" if ref in self.inbounds else body for ref, body in shape.inbounds.items()},
            users=shape.users,
            outbounds=tuple(
                (tag, b"" if tag in self.outbounds else body)
                for tag, body in shape.outbounds
                if tag not in self.missing_outbounds
            ),
            rules=() if self.rules else shape.rules,
            fixed=shape.fixed,
        )


class Prints:
    """Knows how the running Xray's inbounds and outbounds looked when we had made them."""

    def __init__(self, store: StateStore, worker: Worker) -> None:
        self._store = store
        self._worker = worker
        text = store.fact(FACT)
        self._known = msgspec.json.decode(text, type=_Known) if text else _Known()

    def knows(self, start_id: str) -> bool:
        """Whether it has looked at this Xray before."""
        return self._known.start_id == start_id

    async def find_edits(self, running: RunningXray) -> Edits:
        """What somebody else changed. Raises `XrayDown` or `XrayHung`."""
        known = self._known
        rules = {rule.rule_tag for rule in await running.api.list_rules()}
        wanted_rules = {str(json.loads(rule).get("ruleTag") or "") for rule in running.shape.rules}
        if not self.knows(running.start_id):
            return Edits(rules=not wanted_rules <= rules)
        inbounds = await running.api.inbound_prints()
        outbounds = await running.api.outbound_prints()
        edited = [tag for tag, found in inbounds.items() if known.inbounds.get(tag) != found]
        return Edits(
            inbounds=frozenset(ref for tag in edited if (ref := parse_inbound_tag(tag)) is not None),
            outbounds=frozenset(t for t, found in outbounds.items() if known.outbounds.get(t) != found),
            missing_outbounds=frozenset(known.outbounds.keys() - outbounds.keys()),
            rules=not wanted_rules <= rules,
        )

    async def learn(self, running: RunningXray, inbounds: Collection[int], outbounds: Collection[str]) -> None:
        """Remembers these, which we have just made; of an Xray it sees for the first time, everything.

        Raises `XrayDown` or `XrayHung`.
        """
        ours = {inbound_tag(ref) for ref in inbounds}
        first = not self.knows(running.start_id)
        known = _Known(
            start_id=running.start_id,
            inbounds=_merged(self._known.inbounds, await running.api.inbound_prints(), ours, first=first),
            outbounds=_merged(self._known.outbounds, await running.api.outbound_prints(), outbounds, first=first),
        )
        if known != self._known:
            await self._worker.run(lambda: self._store.save_facts(**{FACT: msgspec.json.encode(known).decode()}))
            self._known = known


def _merged(old: Mapping[str, str], found: Mapping[str, str], ours: Collection[str], *, first: bool) -> dict[str, str]:
    if first:
        return dict(found)
    return {tag: found[tag] if tag in ours else old[tag] for tag in found if tag in ours or tag in old}
