"""Everything Xray would accept in silence though it is wrong, and what it would refuse, named by path.

`xray.md` §6 of the measurements lists what Xray lets through; the bind-denied probe (`validate`) finds the rest.
"""

from collections.abc import Collection, Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from xfleet_contracts.desired_state import ClientBody, EntityKey, InboundBody, OutboundBody, RuleBody, SettingsBody
from xfleet_xraykit.counters import client_email, inbound_tag
from xfleet_xraykit.problems import EntityProblem, Problem, as_list, as_object, at_entity, nearest, unknown_keys
from xfleet_xraykit.protocols import (
    find_protocol,
    find_security,
    find_transport,
    inbound_protocols,
    securities,
    security_name,
    transport_name,
    transports,
)
from xfleet_xraykit.state import State

MAX_PORT = 65535
RESERVED_TAGS = frozenset({"api"})
BLOCK_TAG = "block"
BLOCK_RULE_PREFIX = "blocked-"
LOG_LEVELS = ("debug", "info", "warning", "error", "none")
DOMAIN_STRATEGIES = ("AsIs", "IPIfNonMatch", "IPOnDemand")
SETTINGS_KEY = EntityKey(kind="settings", id="xray")

_STREAM_KEYS = frozenset({
    "network", "method", "security", "sockopt", "finalmask", "externalProxy", "tlsSettings", "realitySettings",
    "rawSettings", "tcpSettings", "wsSettings", "kcpSettings", "grpcSettings", "httpupgradeSettings", "xhttpSettings",
    "splithttpSettings", "hysteriaSettings", "address", "port",
})  # fmt: skip
_SOCKOPT_KEYS = frozenset({
    "mark", "tcpFastOpen", "tproxy", "acceptProxyProtocol", "domainStrategy", "dialerProxy", "tcpKeepAliveInterval",
    "tcpKeepAliveIdle", "tcpCongestion", "tcpcongestion", "tcpWindowClamp", "tcpMaxSeg", "penetrate", "tcpUserTimeout",
    "v6only", "V6Only", "interface", "tcpMptcp", "customSockopt", "addressPortStrategy", "happyEyeballs",
    "trustedXForwardedFor",
})  # fmt: skip
_SNIFFING_KEYS = frozenset(
    {"enabled", "destOverride", "metadataOnly", "routeOnly", "ipsExcluded", "domainsExcluded"},
)
_SNIFFED = frozenset({"http", "tls", "quic", "fakedns", "fakedns+others"})
_RULE_KEYS = frozenset({
    "type", "ruleTag", "outboundTag", "balancerTag", "domain", "domains", "ip", "port", "sourcePort", "localPort",
    "network", "source", "sourceIP", "localIP", "user", "vlessRoute", "inboundTag", "protocol", "attrs", "process",
    "webhook", "localOS",
})  # fmt: skip
_OUTBOUND_SETTINGS_KEYS = {
    "freedom": frozenset({
        "domainStrategy", "targetStrategy", "redirect", "userLevel", "fragment", "noise", "noises", "proxyProtocol",
        "ipsBlocked", "finalRules", "timeout",
    }),
    "blackhole": frozenset({"response"}),
}  # fmt: skip
_DNS_KEYS = frozenset({
    "servers", "hosts", "clientIp", "tag", "queryStrategy", "disableCache", "disableFallback",
    "disableFallbackIfMatch", "useSystemHosts", "enableParallelQuery", "serveStale", "serveExpiredTTL",
})  # fmt: skip
_LEVEL_KEYS = frozenset({
    "handshake", "connIdle", "uplinkOnly", "downlinkOnly", "bufferSize", "statsUserUplink", "statsUserDownlink",
    "statsUserOnline",
})  # fmt: skip
_SYSTEM_KEYS = frozenset(
    {"statsInboundUplink", "statsInboundDownlink", "statsOutboundUplink", "statsOutboundDownlink"},
)
_RULE_TARGETS = frozenset({"type", "ruleTag", "outboundTag", "balancerTag", "webhook"})


def lint_inbound(body: InboundBody) -> list[Problem]:
    """What is wrong with one inbound by itself."""
    return list(_inbound_problems(body))


def lint_client(client: ClientBody, inbound: InboundBody | None = None) -> list[Problem]:
    """What is wrong with one client, on this inbound when it is given."""
    if inbound is None:
        return []
    protocol = find_protocol(inbound)
    return [] if protocol is None else list(protocol.lint_client(client, inbound))


def lint_outbound(body: OutboundBody) -> list[Problem]:
    """What is wrong with one outbound by itself."""
    found: list[Problem] = []
    if not body.tag or any(char.isspace() for char in body.tag) or ">>>" in body.tag:
        found.append(Problem("tag", "bad_tag", "An outbound needs a tag without spaces and without >>>."))
    if body.tag in RESERVED_TAGS:
        found.append(Problem("tag", "reserved_tag", f"The tag {body.tag!r} is reserved."))
    if body.tag == BLOCK_TAG and body.protocol != "blackhole":
        found.append(Problem("protocol", "block_must_block", f"The outbound {BLOCK_TAG!r} must be a blackhole."))
    if body.protocol in _OUTBOUND_SETTINGS_KEYS:
        found.extend(unknown_keys(body.settings, _OUTBOUND_SETTINGS_KEYS[body.protocol], "settings"))
    found.extend(unknown_keys(body.stream_settings, _STREAM_KEYS, "stream_settings"))
    found.extend(unknown_keys(as_object(body.stream_settings.get("sockopt")), _SOCKOPT_KEYS, "stream_settings.sockopt"))
    return found


def lint_rule(tag: str, body: RuleBody, *, outbounds: Collection[str], inbounds: Collection[str]) -> list[Problem]:
    """What is wrong with one routing rule among these outbound and inbound tags."""
    rule = body.rule
    found = list(unknown_keys(rule, _RULE_KEYS, "rule"))
    if tag.startswith(BLOCK_RULE_PREFIX):
        found.append(Problem("", "reserved_tag", f"Rule names that begin with {BLOCK_RULE_PREFIX!r} are reserved."))
    if not rule.keys() - _RULE_TARGETS:
        found.append(Problem("rule", "rule_matches_nothing", "The rule has no condition."))
    if not rule.get("outboundTag") and not rule.get("balancerTag"):
        found.append(Problem("rule.outboundTag", "rule_without_target", "The rule names no outbound."))
    target = str(rule.get("outboundTag") or "")
    if target and target not in outbounds:
        near = nearest(target, outbounds)
        hint = f" Did you mean {near!r}?" if near else ""
        found.append(Problem("rule.outboundTag", "unknown_outbound", f"There is no outbound {target!r}.{hint}"))
    for index, source in enumerate(_texts(rule.get("inboundTag"))):
        if source not in inbounds:
            reason = f"There is no inbound {source!r}."
            found.append(Problem(f"rule.inboundTag[{index}]", "unknown_inbound", reason))
    return found


def lint_settings(body: SettingsBody) -> list[Problem]:
    """What is wrong with the settings."""
    found: list[Problem] = []
    if body.log_level not in LOG_LEVELS:
        found.append(Problem("log_level", "unknown_log_level", f"The log level is one of {', '.join(LOG_LEVELS)}."))
    if body.domain_strategy not in DOMAIN_STRATEGIES:
        reason = f"The domain strategy is one of {', '.join(DOMAIN_STRATEGIES)}."
        found.append(Problem("domain_strategy", "unknown_domain_strategy", reason))
    found.extend(unknown_keys(body.policy, {"levels", "system"}, "policy"))
    for level, policy in as_object(body.policy.get("levels")).items():
        found.extend(unknown_keys(as_object(policy), _LEVEL_KEYS, f"policy.levels.{level}"))
    found.extend(unknown_keys(as_object(body.policy.get("system")), _SYSTEM_KEYS, "policy.system"))
    found.extend(unknown_keys(body.dns, _DNS_KEYS, "dns"))
    return found


def lint_state(state: State) -> list[EntityProblem]:
    """What is wrong with every entity and between them, in a stable order."""
    found = list(state.unreadable)
    for ref, inbound in sorted(state.inbounds.items()):
        found.extend(at_entity(_inbound_key(ref), problem) for problem in _inbound_problems(inbound))
    found.extend(_port_clashes(state.inbounds))
    for ref in sorted(state.clients):
        found.extend(_lint_clients(ref, state.inbounds.get(ref), state.clients[ref]))
    for outbound in state.outbounds:
        key = EntityKey(kind="outbound", id=outbound.tag)
        found.extend(at_entity(key, problem) for problem in lint_outbound(outbound))
    outbound_tags = {each.tag for each in state.outbounds} | {"direct", BLOCK_TAG}
    inbound_tags = {inbound_tag(ref) for ref in state.inbounds}
    for tag, rule in state.rules:
        problems = lint_rule(tag, rule, outbounds=outbound_tags, inbounds=inbound_tags)
        found.extend(at_entity(EntityKey(kind="rule", id=tag), problem) for problem in problems)
    found.extend(at_entity(SETTINGS_KEY, problem) for problem in lint_settings(state.settings))
    return found


def find_port_clash(body: InboundBody, others: Mapping[int, InboundBody]) -> int | None:
    """The ref of another inbound that holds the same port on an overlapping address, or None.

    Xray would start all the same and the kernel would deal out connections between the two.
    """
    for ref, other in sorted(others.items()):
        if ref != body.ref and _same_door(body, other):
            return ref
    return None


def _inbound_problems(body: InboundBody) -> Iterator[Problem]:
    yield from _lint_address(body)
    yield from _lint_stream(body.stream_settings)
    yield from _lint_sniffing(body.sniffing)
    protocol = find_protocol(body)
    if protocol is None:
        yield _not_spoken("protocol", "unknown_protocol", body.protocol, inbound_protocols())
        return
    yield from protocol.lint_inbound(body)
    if as_list(body.settings.get("clients")):
        yield Problem("settings.clients", "clients_elsewhere", "Clients are entities of their own, not settings.")


def _lint_address(body: InboundBody) -> Iterator[Problem]:
    if body.listen.startswith(("/", "@")):
        return
    if not 0 < body.port <= MAX_PORT:
        yield Problem("port", "bad_port", f"The port must be between 1 and {MAX_PORT}.")
    if body.listen:
        try:
            ip_address(body.listen)
        except ValueError:
            yield Problem("listen", "bad_listen", "Listen is empty, an IP address or the path of a socket.")


def _lint_stream(stream: Mapping[str, Any]) -> Iterator[Problem]:
    yield from unknown_keys(stream, _STREAM_KEYS, "stream_settings")
    yield from unknown_keys(as_object(stream.get("sockopt")), _SOCKOPT_KEYS, "stream_settings.sockopt")
    for key, value in stream.items():
        if key.endswith("Settings") and not isinstance(value, dict):
            yield Problem(f"stream_settings.{key}", "wrong_type", f"{key} must be an object.")
        if key in {"network", "method", "security"} and not isinstance(value, str):
            yield Problem(f"stream_settings.{key}", "wrong_type", f"{key} must be text.")
    transport, security = find_transport(stream), find_security(stream)
    if transport is None:
        yield _not_spoken("stream_settings.network", "unknown_transport", transport_name(stream), transports())
    else:
        yield from transport.lint(stream)
    if security is None:
        yield _not_spoken("stream_settings.security", "unknown_security", security_name(stream), securities())
    else:
        yield from security.lint(stream, transport_name(stream))


def _lint_sniffing(sniffing: Mapping[str, Any]) -> Iterator[Problem]:
    yield from unknown_keys(sniffing, _SNIFFING_KEYS, "sniffing")
    for index, word in enumerate(_texts(sniffing.get("destOverride"))):
        if word not in _SNIFFED:
            yield Problem(f"sniffing.destOverride[{index}]", "unknown_sniffer", f"Xray cannot sniff {word!r}.")


def _lint_clients(ref: int, inbound: InboundBody | None, clients: Mapping[str, ClientBody]) -> Iterator[EntityProblem]:
    protocol = find_protocol(inbound) if inbound is not None else None
    holders: dict[str, str] = {}
    for email, client in clients.items():
        key = EntityKey(kind="client", id=email)
        if email != client_email(client.client, ref):
            reason = "The entity's id must be <client ref>.<inbound ref>."
            yield EntityProblem(key, "", "bad_id", reason)
        if inbound is None:
            yield EntityProblem(key, "inbound", "inbound_missing", "This server has no such inbound.")
            continue
        if protocol is None:
            continue
        yield from (at_entity(key, problem) for problem in protocol.lint_client(client, inbound))
        credential = str(getattr(client, protocol.credential)).lower()
        holder = holders.setdefault(credential, email)
        if holder != email:
            reason = f"The client {holder} has the same {protocol.credential}: removing one would cut both."
            yield EntityProblem(key, protocol.credential, "duplicate_credential", reason)


def _port_clashes(inbounds: Mapping[int, InboundBody]) -> Iterator[EntityProblem]:
    by_port: dict[tuple[int, str], dict[int, InboundBody]] = {}
    for ref, body in sorted(inbounds.items()):
        socket = body.listen if body.listen.startswith(("/", "@")) else ""
        earlier = by_port.setdefault((0 if socket else body.port, socket), {})
        clash = find_port_clash(body, earlier)
        if clash is not None:
            reason = f"Port {body.port} is already taken by the inbound {clash} on an overlapping address."
            yield EntityProblem(_inbound_key(ref), "port", "duplicate_port", reason)
        earlier[ref] = body


def _same_door(one: InboundBody, other: InboundBody) -> bool:
    sockets = [each.listen for each in (one, other) if each.listen.startswith(("/", "@"))]
    if sockets:
        return one.listen == other.listen
    return one.port == other.port and _overlap(one.listen, other.listen)


def _overlap(one: str, other: str) -> bool:
    first, second = _network(one), _network(other)
    if first is None or second is None:
        return one == other
    if first.prefixlen == 0 or second.prefixlen == 0:
        # `::` and an empty address take IPv4 too; 0.0.0.0 takes IPv4 only.
        wide, narrow = (first, second) if first.prefixlen == 0 else (second, first)
        return wide.version == 6 or narrow.version == 4 or narrow.prefixlen == 0  # noqa: PLR2004  IP versions
    return first == second


def _network(listen: str) -> Any:
    try:
        address = ip_address(listen or "::")
    except ValueError:
        return None
    return ip_network(f"{address}/0" if address.is_unspecified else str(address))


def _not_spoken(path: str, code: str, name: str, known: Collection[str]) -> Problem:
    near = nearest(name, known)
    hint = f" Did you mean {near!r}?" if near else f" Known are {', '.join(sorted(known))}."
    return Problem(path, code, f"{name!r} is not supported.{hint}")


def _inbound_key(ref: int) -> EntityKey:
    return EntityKey(kind="inbound", id=str(ref))


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(each) for each in as_list(value)]
