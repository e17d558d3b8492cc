"""Everything we ask of a running Xray, over its gRPC API.

Orders that would crash it (an account of another protocol, an order without a body) are refused before they are sent:
Xray has no recovery around its API, so one such call would cut every client.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from xfleet_xraykit.accounts import Account, decode_account
from xfleet_xraykit.channel import CALL_TIMEOUT_S, ApiChannel
from xfleet_xraykit.convert import add_rules_request
from xfleet_xraykit.counters import Counter, parse_counter
from xfleet_xraykit.errors import AccountMismatch, EmptyOrder, InboundUnknown, XrayDown, XrayHung, XrayRefused
from xfleet_xraykit.lint import BLOCK_RULE_PREFIX, BLOCK_TAG
from xfleet_xraykit.pb import core_pb2, handler_pb2, logger_pb2, router_pb2, routing_pb2, stats_pb2
from xfleet_xraykit.pb.typed_message_pb2 import TypedMessage
from xfleet_xraykit.pb.user_pb2 import User
from xfleet_xraykit.process import StartedXray, is_running
from xfleet_xraykit.protocols import inbound_protocols

READY_TIMEOUT_S = 10.0
_READY_POLL_S = 0.01
_BULK_TIMEOUT_S = 15.0
_HANDLER = "/xray.app.proxyman.command.HandlerService/"
_STATS = "/xray.app.stats.command.StatsService/"
_ROUTING = "/xray.app.router.command.RoutingService/"
_UNORDERED_CONFIGS = frozenset({"xray.proxy.http.ServerConfig", "xray.proxy.socks.ServerConfig"})
"""Xray writes their accounts in another order each time."""
_LOGGER = "/xray.app.log.command.LoggerService/"


class Converter(Protocol):
    """Turns Xray's JSON into the messages its API takes (see `convert`)."""

    async def inbound(self, config: Mapping[str, Any]) -> core_pb2.InboundHandlerConfig:
        """One inbound."""
        ...

    async def outbound(self, config: Mapping[str, Any]) -> core_pb2.OutboundHandlerConfig:
        """One outbound."""
        ...

    async def rules(self, rules: Sequence[Mapping[str, Any]]) -> list[router_pb2.RoutingRule]:
        """Routing rules, tried out together: an Xray that refuses one has already forgotten the others."""
        ...


class RunningRule(NamedTuple):
    """One routing rule of a running Xray; what it matches cannot be asked."""

    rule_tag: str
    outbound_tag: str


class SysStats(NamedTuple):
    """What Xray says about itself."""

    uptime_s: int
    goroutines_count: int
    memory_bytes: int


class OnlineAddress(NamedTuple):
    """Where a client is connected from."""

    ip: str
    last_seen_s: int
    """Unix seconds of its last new stream."""


class XrayApi:
    """The API of one Xray, known by its socket."""

    def __init__(
        self, socket_path: str | Path, *, converter: Converter | None = None, timeout_s: float = CALL_TIMEOUT_S
    ) -> None:
        self._channel = ApiChannel(Path(socket_path), timeout_s=timeout_s)
        self._converter = converter
        self._config_types: dict[str, str] = {}
        self._types_lock = asyncio.Lock()
        self._rules: list[router_pb2.RoutingRule] = []
        self._rules_lock = asyncio.Lock()

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    async def wait_ready(self, started: StartedXray | None = None, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Returns as soon as Xray answers. Raises `XrayDown` when it ended before, or `XrayHung`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while (left_s := deadline - loop.time()) > 0:
            if started is not None and not is_running(started):
                raise XrayDown("Xray ended while it was starting.")
            if await self._channel.answers(left_s):
                with suppress(XrayDown, XrayHung):
                    await self.sys_stats(timeout_s=left_s)
                    return
            await asyncio.sleep(_READY_POLL_S)
        raise XrayHung(f"Xray did not answer within {timeout_s:g} s of its start.")

    async def sys_stats(self, *, timeout_s: float | None = None) -> SysStats:
        """Uptime and memory; the cheapest sign of life."""
        request = stats_pb2.SysStatsRequest()
        got = await self._channel.call(f"{_STATS}GetSysStats", request, stats_pb2.SysStatsResponse, timeout_s=timeout_s)
        return SysStats(got.Uptime, got.NumGoroutine, got.Sys)

    async def query_counters(self) -> list[Counter]:
        """Every traffic counter, never reset: they only grow while this Xray lives."""
        request = stats_pb2.QueryStatsRequest(pattern="", reset=False)
        got = await self._channel.call(
            f"{_STATS}QueryStats", request, stats_pb2.QueryStatsResponse, timeout_s=_BULK_TIMEOUT_S
        )
        counters = (parse_counter(each.name, each.value) for each in got.stat)
        return [counter for counter in counters if counter is not None]

    async def online_users(self) -> dict[str, tuple[OnlineAddress, ...]]:
        """Email to addresses of everyone connected now; connections from 127.0.0.1 and ::1 are not among them."""
        request = stats_pb2.GetUsersStatsRequest(include_traffic=False)
        got = await self._channel.call(
            f"{_STATS}GetUsersStats", request, stats_pb2.GetUsersStatsResponse, timeout_s=_BULK_TIMEOUT_S
        )
        return {user.email: tuple(OnlineAddress(at.ip, at.last_seen) for at in user.ips) for user in got.users}

    async def restart_logger(self) -> None:
        """Opens the log files anew, after they were renamed."""
        await self._channel.call(
            f"{_LOGGER}RestartLogger", logger_pb2.RestartLoggerRequest(), logger_pb2.RestartLoggerResponse
        )

    async def add_user(self, tag: str, protocol: str, email: str, account: Account) -> None:
        """Makes the client exist on the inbound with exactly this account; others are not disturbed.

        Raises `AccountMismatch`, `InboundUnknown` or `XrayRefused`.
        """
        await self._check_account(tag, protocol, account)
        if not email:
            raise EmptyOrder("A client without an email could never be removed.")
        try:
            await self._add_user(tag, email, account)
        except XrayRefused as refusal:
            if "already exists" not in refusal.text:
                raise
            running = await self.find_user(tag, email)
            if running is not None and account.covers(running):
                return
            await self.remove_user(tag, email)
            await self._add_user(tag, email, account)

    async def remove_user(self, tag: str, email: str) -> None:
        """Makes the client absent from the inbound; streams it already has go on (see `block_user`)."""
        if not email:
            raise EmptyOrder("A client without an email cannot be removed.")
        operation = handler_pb2.RemoveUserOperation(email=email)
        try:
            await self._alter(tag, "xray.app.proxyman.command.RemoveUserOperation", operation.SerializeToString())
        except XrayRefused:
            if await self.find_user(tag, email) is not None:
                raise

    async def find_user(self, tag: str, email: str) -> Account | None:
        """The account the inbound really has for this email, or None. Raises `XrayRefused` when it has no users."""
        users = await self._users(handler_pb2.GetInboundUserRequest(tag=tag, email=email))
        return users.get(email)

    async def inbound_users(self, tag: str) -> dict[str, Account]:
        """Email to account, as the inbound really runs now. Raises `InboundUnknown`."""
        try:
            return await self._users(handler_pb2.GetInboundUserRequest(tag=tag))
        except XrayRefused:
            if tag not in await self.list_inbounds():
                raise InboundUnknown(f"Xray runs no inbound {tag}.", tag=tag) from None
            raise

    async def list_inbounds(self) -> list[str]:
        """The tags of all inbounds, sorted: Xray keeps no order."""
        request = handler_pb2.ListInboundsRequest(isOnlyTags=True)
        got = await self._channel.call(f"{_HANDLER}ListInbounds", request, handler_pb2.ListInboundsResponse)
        return sorted(each.tag for each in got.inbounds)

    async def inbound_prints(self) -> dict[str, str]:
        """A fingerprint of every inbound's configuration by tag; what users come and go later does not change it."""
        request = handler_pb2.ListInboundsRequest()
        got = await self._channel.call(
            f"{_HANDLER}ListInbounds", request, handler_pb2.ListInboundsResponse, timeout_s=_BULK_TIMEOUT_S
        )
        return {each.tag: _print_of(each.receiver_settings, each.proxy_settings) for each in got.inbounds}

    async def outbound_prints(self) -> dict[str, str]:
        """A fingerprint of every outbound's configuration by tag."""
        request = handler_pb2.ListOutboundsRequest()
        got = await self._channel.call(f"{_HANDLER}ListOutbounds", request, handler_pb2.ListOutboundsResponse)
        return {each.tag: _print_of(each.sender_settings, each.proxy_settings) for each in got.outbounds}

    async def list_outbounds(self) -> list[str]:
        """The tags of all outbounds, sorted: which is the default one cannot be asked."""
        request = handler_pb2.ListOutboundsRequest()
        got = await self._channel.call(f"{_HANDLER}ListOutbounds", request, handler_pb2.ListOutboundsResponse)
        return sorted(each.tag for each in got.outbounds)

    async def add_inbound(self, config: Mapping[str, Any]) -> None:
        """Opens an inbound given as Xray's JSON, with its users. Raises `ConfigRefused` or `XrayRefused`.

        What Xray refuses, such as a busy port, leaves nothing behind.
        """
        message = await self._convert().inbound(config)
        if not message.tag or not message.HasField("receiver_settings") or not message.HasField("proxy_settings"):
            raise EmptyOrder("The inbound has no body.")
        request = handler_pb2.AddInboundRequest(inbound=message)
        self._config_types.pop(message.tag, None)
        if message.tag in await self.list_inbounds():
            raise XrayRefused(f"Xray already runs an inbound {message.tag}.", tag=message.tag)
        try:
            await self._channel.call(f"{_HANDLER}AddInbound", request, handler_pb2.Empty, timeout_s=_BULK_TIMEOUT_S)
        except XrayRefused:
            await self.remove_inbound(message.tag)
            raise
        self._config_types[message.tag] = message.proxy_settings.type

    async def remove_inbound(self, tag: str) -> None:
        """Closes an inbound's port; streams it already has go on. An absent one is no error."""
        self._config_types.pop(tag, None)
        try:
            await self._channel.call(
                f"{_HANDLER}RemoveInbound", handler_pb2.RemoveInboundRequest(tag=tag), handler_pb2.Empty
            )
        except XrayRefused:
            if tag in await self.list_inbounds():
                raise

    async def add_outbound(self, config: Mapping[str, Any]) -> None:
        """Adds an outbound given as Xray's JSON. Raises `ConfigRefused` or `XrayRefused`."""
        message = await self._convert().outbound(config)
        if not message.tag or not message.HasField("proxy_settings"):
            raise EmptyOrder("The outbound has no body.")
        request = handler_pb2.AddOutboundRequest(outbound=message)
        await self._channel.call(f"{_HANDLER}AddOutbound", request, handler_pb2.Empty)

    async def remove_outbound(self, tag: str) -> None:
        """Removes an outbound. Without the default one traffic stands still until another is added."""
        await self._channel.call(
            f"{_HANDLER}RemoveOutbound", handler_pb2.RemoveOutboundRequest(tag=tag), handler_pb2.Empty
        )

    async def set_rules(self, rules: Sequence[Mapping[str, Any]], *, blocked: Iterable[str] | None = None) -> None:
        """Replaces all routing rules in one step; blocks of clients stay in front of them.

        `blocked` None keeps the emails blocked now. Raises `RuleNeedsRestart` or `ConfigRefused` before anything is
        changed.
        """
        made = await self._convert().rules(rules) if rules else []
        async with self._rules_lock:
            emails = await self._blocked() if blocked is None else set(blocked)
            await self._replace(made, emails)

    async def add_rule(self, rule: Mapping[str, Any]) -> None:
        """Appends one routing rule in Xray's JSON, which must have a `ruleTag`."""
        if not rule.get("ruleTag"):
            raise EmptyOrder("A rule needs a ruleTag, or it could never be removed.")
        made = await self._convert().rules([rule])
        async with self._rules_lock:
            await self._send_rules(made, append=True)
            self._rules += made

    async def remove_rule(self, rule_tag: str) -> None:
        """Removes one rule; an absent one is no error."""
        async with self._rules_lock:
            await self._remove_rule(rule_tag)
            self._rules = [each for each in self._rules if each.rule_tag != rule_tag]

    async def list_rules(self) -> list[RunningRule]:
        """The rules in their order."""
        got = await self._channel.call(
            f"{_ROUTING}ListRule", routing_pb2.ListRuleRequest(), routing_pb2.ListRuleResponse
        )
        return [RunningRule(each.ruleTag, each.tag) for each in got.rules]

    async def block_user(self, email: str) -> None:
        """As `block_users`, for one."""
        await self.block_users((email,))

    async def block_users(self, emails: Iterable[str]) -> None:
        """Lets no new stream of these clients out, not even on a multiplexed connection they still have.

        The blocks come first among the rules this object knows (`set_rules`, `add_rule`), otherwise last.
        """
        wanted = set(emails)
        if "" in wanted:
            raise EmptyOrder("A block without an email would match nobody.")
        async with self._rules_lock:
            blocked = await self._blocked()
            if wanted <= blocked:
                return
            if self._rules:
                await self._replace(self._rules, wanted | blocked)
            else:
                await self._send_rules([_block_rule(each) for each in sorted(wanted - blocked)], append=True)

    async def unblock_user(self, email: str) -> None:
        """Undoes `block_user`."""
        async with self._rules_lock:
            await self._remove_rule(BLOCK_RULE_PREFIX + email)

    async def blocked_users(self) -> set[str]:
        """The emails blocked now."""
        return await self._blocked()

    async def _check_account(self, tag: str, protocol: str, account: Account) -> None:
        known = inbound_protocols().get(protocol)
        if known is None or known.account_type != account.type:
            raise AccountMismatch(f"{account.type} is not an account of {protocol}.", tag=tag, protocol=protocol)
        running = await self._config_type(tag)
        if running is None:
            raise InboundUnknown(f"Xray runs no inbound {tag}.", tag=tag)
        if running != known.config_type:
            raise AccountMismatch(f"The inbound {tag} does not speak {protocol} ({running}).", tag=tag)

    async def _config_type(self, tag: str) -> str | None:
        """What the inbound really speaks; asked once, because the answer holds all its users."""
        async with self._types_lock:
            if tag not in self._config_types:
                request = handler_pb2.ListInboundsRequest()
                got = await self._channel.call(
                    f"{_HANDLER}ListInbounds", request, handler_pb2.ListInboundsResponse, timeout_s=_BULK_TIMEOUT_S
                )
                self._config_types = {each.tag: each.proxy_settings.type for each in got.inbounds}
            return self._config_types.get(tag)

    async def _add_user(self, tag: str, email: str, account: Account) -> None:
        user = User(level=0, email=email, account=TypedMessage(type=account.type, value=account.encode()))
        operation = handler_pb2.AddUserOperation(user=user)
        await self._alter(tag, "xray.app.proxyman.command.AddUserOperation", operation.SerializeToString())

    async def _alter(self, tag: str, operation: str, value: bytes) -> None:
        request = handler_pb2.AlterInboundRequest(tag=tag, operation=TypedMessage(type=operation, value=value))
        await self._channel.call(f"{_HANDLER}AlterInbound", request, handler_pb2.Empty)

    async def _users(self, request: handler_pb2.GetInboundUserRequest) -> dict[str, Account]:
        got = await self._channel.call(
            f"{_HANDLER}GetInboundUsers", request, handler_pb2.GetInboundUserResponse, timeout_s=_BULK_TIMEOUT_S
        )
        return {
            user.email: decode_account(user.account.type, user.account.value)
            for user in got.users
            if user.email and user.HasField("account")
        }

    async def _blocked(self) -> set[str]:
        rules = await self.list_rules()
        return {
            each.rule_tag.removeprefix(BLOCK_RULE_PREFIX)
            for each in rules
            if each.rule_tag.startswith(BLOCK_RULE_PREFIX)
        }

    async def _replace(self, rules: list[router_pb2.RoutingRule], blocked: set[str]) -> None:
        await self._send_rules([*map(_block_rule, sorted(blocked)), *rules], append=False)
        self._rules = rules

    async def _send_rules(self, rules: Sequence[router_pb2.RoutingRule], *, append: bool) -> None:
        await self._channel.call(f"{_ROUTING}AddRule", add_rules_request(rules, append=append), routing_pb2.Empty)

    async def _remove_rule(self, rule_tag: str) -> None:
        if not rule_tag:
            raise EmptyOrder("A rule without a tag cannot be removed.")
        try:
            await self._channel.call(
                f"{_ROUTING}RemoveRule", routing_pb2.RemoveRuleRequest(ruleTag=rule_tag), routing_pb2.Empty
            )
        except XrayRefused:
            if any(each.rule_tag == rule_tag for each in await self.list_rules()):
                raise

    def _convert(self) -> Converter:
        if self._converter is None:
            raise EmptyOrder("This connection to Xray was made without a converter for its JSON.")
        return self._converter


def _print_of(*settings: TypedMessage) -> str:
    digest = sha256()
    for each in settings:
        value = bytes(sorted(each.value)) if each.type in _UNORDERED_CONFIGS else each.value
        digest.update(f"{each.type} {len(value)} ".encode() + value)
    return digest.hexdigest()


def _block_rule(email: str) -> router_pb2.RoutingRule:
    return router_pb2.RoutingRule(tag=BLOCK_TAG, rule_tag=BLOCK_RULE_PREFIX + email, user_email=[email])
