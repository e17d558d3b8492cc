"""Xray's JSON to the messages of its API, by asking an Xray: no transport or proxy is spelled out here.

A scratch Xray starts with the piece of JSON on a port nobody knows, is asked for it as a message, and ends. Rules of
addresses and domains are read off in the same way from the sniffing exclusions, which have the same form.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from xfleet_runtime.log import get_logger
from xfleet_xraykit.channel import ApiChannel
from xfleet_xraykit.errors import ConfigRefused, RuleNeedsRestart, XrayDown, XrayHung, XrayRefused
from xfleet_xraykit.launcher import Launcher
from xfleet_xraykit.pb import core_pb2, handler_pb2, router_pb2, routing_pb2
from xfleet_xraykit.pb.net_pb2 import IPOrDomain, Network, PortList, PortRange
from xfleet_xraykit.pb.receiver_pb2 import ReceiverConfig
from xfleet_xraykit.pb.typed_message_pb2 import TypedMessage
from xfleet_xraykit.problems import as_list, as_object
from xfleet_xraykit.process import StartedXray, is_running, stop

SCRATCH_TIMEOUT_S = 10.0
SCRATCH_TRIES = 3
_POLL_S = 0.01
_HANDLER = "/xray.app.proxyman.command.HandlerService/"
_ROUTING = "/xray.app.router.command.RoutingService/"
_NOWHERE = {"tag": "nowhere", "protocol": "blackhole"}
_HOT_RULE_KEYS = frozenset({
    "type", "ruleTag", "outboundTag", "balancerTag", "domain", "domains", "ip", "source", "sourceIP", "port",
    "sourcePort", "network", "user", "inboundTag", "protocol", "attrs", "localIP", "localPort", "vlessRoute",
})  # fmt: skip
_NETWORKS = {"tcp": Network.TCP, "udp": Network.UDP, "unix": Network.UNIX}
_PORT_FIELDS = {
    "port": "port_list",
    "sourcePort": "source_port_list",
    "localPort": "local_port_list",
    "vlessRoute": "vless_route_list",
}
_MAX_PORT = 65535

T = TypeVar("T")
_log = get_logger(__name__)


class ScratchConverter:
    """Converts by a scratch Xray of this launcher."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    async def inbound(self, config: Mapping[str, Any]) -> core_pb2.InboundHandlerConfig:
        """One inbound, with the port and address it asked for. Raises `ConfigRefused`."""
        listen, port = str(config.get("listen") or ""), config.get("port", 0)
        scratch = {**config, "listen": "127.0.0.1", "port": 0}
        [message] = (await self._ask({"inbounds": [scratch], "outbounds": [_NOWHERE]}, _list_inbounds)).inbounds
        receiver = ReceiverConfig.FromString(message.receiver_settings.value)
        receiver.ClearField("listen")
        receiver.ClearField("port_list")
        if listen:
            receiver.listen.CopyFrom(_address(listen))
        if not listen.startswith(("/", "@")):
            receiver.port_list.CopyFrom(_ports(port))
        message.receiver_settings.value = receiver.SerializeToString()
        return message

    async def outbound(self, config: Mapping[str, Any]) -> core_pb2.OutboundHandlerConfig:
        """One outbound. Raises `ConfigRefused`."""
        request = handler_pb2.ListOutboundsRequest()

        async def list_outbounds(channel: ApiChannel) -> handler_pb2.ListOutboundsResponse:
            return await channel.call(f"{_HANDLER}ListOutbounds", request, handler_pb2.ListOutboundsResponse)

        return (await self._ask({"outbounds": [dict(config)]}, list_outbounds)).outbounds[0]

    async def rules(self, rules: Sequence[Mapping[str, Any]]) -> list[router_pb2.RoutingRule]:
        """Routing rules, tried out together. Raises `RuleNeedsRestart` or `ConfigRefused`."""
        made = [_plain_rule(rule) for rule in rules]
        wanted = [
            (made[index], field, words) for index, rule in enumerate(rules) for field, words in _matchers(rule) if words
        ]
        listeners = [_listener(f"m{index}", field, words) for index, (_, field, words) in enumerate(wanted)]

        async def fill_and_try(channel: ApiChannel) -> None:
            if wanted:
                by_tag = {each.tag: each for each in (await _list_inbounds(channel)).inbounds}
                for index, (rule, field, _) in enumerate(wanted):
                    _fill(rule, field, by_tag[f"m{index}"])
            request = add_rules_request(made, append=False)
            try:
                await channel.call(f"{_ROUTING}AddRule", request, routing_pb2.Empty)
            except XrayRefused as refusal:
                raise ConfigRefused(refusal.text) from refusal

        await self._ask({"inbounds": listeners, "outbounds": [_NOWHERE], "routing": {"rules": []}}, fill_and_try)
        return made

    async def _ask(self, config: dict[str, Any], question: Callable[[ApiChannel], Awaitable[T]]) -> T:
        """The answer of a scratch Xray to the question.

        Only an Xray that ends by itself has refused the configuration. One that is slow to answer, as on a busy
        machine, is asked anew; when it stays silent, `XrayHung` says so.
        """
        for _ in range(SCRATCH_TRIES):
            try:
                return await self._ask_once(config, question)
            except (TimeoutError, XrayHung, XrayDown) as error:
                _log.info("a scratch Xray did not answer", reason=str(error))
        raise XrayHung("A scratch Xray did not answer: the machine may be too busy.")

    async def _ask_once(self, config: dict[str, Any], question: Callable[[ApiChannel], Awaitable[T]]) -> T:
        with tempfile.TemporaryDirectory(prefix="xr-") as name:
            api_socket, output = Path(name, "api.sock"), Path(name, "out")
            api = {"tag": "api", "listen": str(api_socket), "services": ["HandlerService", "RoutingService"]}
            whole = {**config, "api": api, "log": {"loglevel": "warning", "access": "none"}}
            started = await self._launcher.start(whole, api_socket=api_socket, output=output)
            channel = ApiChannel(api_socket)
            try:
                async with asyncio.timeout(SCRATCH_TIMEOUT_S):
                    while not await channel.answers(SCRATCH_TIMEOUT_S):
                        _require_running(started, output)
                        await asyncio.sleep(_POLL_S)
                    return await question(channel)
            except XrayDown:
                _require_running(started, output)
                raise
            finally:
                await channel.close()
                await asyncio.shield(stop(started))


def add_rules_request(rules: Sequence[router_pb2.RoutingRule], *, append: bool) -> routing_pb2.AddRuleRequest:
    """The order to append these rules, or to put them in the place of all others."""
    config = router_pb2.Config(rule=rules)
    typed = TypedMessage(type="xray.app.router.Config", value=config.SerializeToString())
    return routing_pb2.AddRuleRequest(config=typed, shouldAppend=append)


async def _list_inbounds(channel: ApiChannel) -> handler_pb2.ListInboundsResponse:
    request = handler_pb2.ListInboundsRequest()
    return await channel.call(f"{_HANDLER}ListInbounds", request, handler_pb2.ListInboundsResponse)


def _fill(rule: router_pb2.RoutingRule, field: str, listener: core_pb2.InboundHandlerConfig) -> None:
    found = ReceiverConfig.FromString(listener.receiver_settings.value).sniffing_settings
    rule.ClearField(field)
    getattr(rule, field).extend(found.domains_excluded if field == "domain" else found.ips_excluded)


def _require_running(started: StartedXray, output: Path) -> None:
    if not is_running(started):
        raise ConfigRefused(_reason(output))


def _reason(output: Path) -> str:
    text = output.read_text(errors="replace").strip()
    return text.splitlines()[-1] if text else "Xray did not accept the configuration."


def _listener(tag: str, field: str, words: list[str]) -> dict[str, Any]:
    excluded = "domainsExcluded" if field == "domain" else "ipsExcluded"
    return {
        "tag": tag,
        "listen": "127.0.0.1",
        "port": 0,
        "protocol": "dokodemo-door",
        "settings": {"address": "127.0.0.1", "port": 9, "network": "tcp"},
        "sniffing": {"enabled": True, "destOverride": ["http"], excluded: words},
    }


def _address(listen: str) -> IPOrDomain:
    try:
        return IPOrDomain(ip=ip_address(listen).packed)
    except ValueError:
        return IPOrDomain(domain=listen)


def _ports(value: Any) -> PortList:
    ranges: list[PortRange] = []
    for part in str(value).split(","):
        first, _, last = part.strip().partition("-")
        low, high = _port(first), _port(last or first)
        ranges.append(PortRange(From=low, To=high))
    return PortList(range=ranges)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 <= int(text) <= _MAX_PORT:
        raise ConfigRefused(f"{text!r} is not a port.")
    return int(text)


def _plain_rule(rule: Mapping[str, Any]) -> router_pb2.RoutingRule:
    cold = sorted(rule.keys() - _HOT_RULE_KEYS)
    if cold:
        raise RuleNeedsRestart(f"The condition {cold[0]!r} is only loaded when Xray starts.", keys=cold)
    made = router_pb2.RoutingRule(
        rule_tag=str(rule.get("ruleTag") or ""),
        user_email=_texts(rule.get("user")),
        inbound_tag=_texts(rule.get("inboundTag")),
        protocol=_texts(rule.get("protocol")),
        attributes={str(key): str(value) for key, value in as_object(rule.get("attrs")).items()},
    )
    if rule.get("balancerTag"):
        made.balancing_tag = str(rule["balancerTag"])
    else:
        made.tag = str(rule.get("outboundTag") or "")
    for word in _split(rule.get("network")):
        if word not in _NETWORKS:
            raise ConfigRefused(f"{word!r} is not a network.")
        made.networks.append(_NETWORKS[word])
    for key, field in _PORT_FIELDS.items():
        if rule.get(key) is not None:
            getattr(made, field).CopyFrom(_ports(rule[key]))
    return made


def _matchers(rule: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    return [
        ("domain", _texts(rule.get("domain")) + _texts(rule.get("domains"))),
        ("ip", _texts(rule.get("ip"))),
        ("local_ip", _texts(rule.get("localIP"))),
        ("source_ip", _texts(rule.get("source")) + _texts(rule.get("sourceIP"))),
    ]


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(each) for each in as_list(value)]


def _split(value: Any) -> list[str]:
    return [word.strip().lower() for text in _texts(value) for word in text.split(",") if word.strip()]
