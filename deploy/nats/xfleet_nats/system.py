"""Speaking with the broker itself, as the SYS account: account tokens, kicks, and who is there.

A node that was down while an account token was pushed comes back with the old one and lets a revoked agent in; so the
token is pushed again to every node that appears (`NodeWatch`), and always built from the union of what all hold.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from xfleet_nats.accounts import AccountState, plan_account, read_account
from xfleet_nats.fleet import FleetIssuer
from xfleet_runtime.broker import BrokerLink, Incoming
from xfleet_runtime.clock import Clock, SystemClock
from xfleet_runtime.keys.jwt import BadJwtError
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
ANSWER_TIMEOUT_S = 2.0
NODES_MAX = 64
PAGE_COUNT = 256
_OK = 200


class _Server(msgspec.Struct):
    id: str = ""
    name: str = ""


class _Listed(msgspec.Struct):
    cid: int
    ip: str = ""
    subscriptions: int = 0
    authorized_user: str = ""
    in_msgs: int = 0
    in_bytes: int = 0


class _Answer(msgspec.Struct):
    server: _Server = msgspec.field(default_factory=_Server)
    data: dict[str, Any] = {}
    error: dict[str, Any] = {}


class Push(msgspec.Struct, frozen=True, kw_only=True):
    """What came of handing an account token to the nodes."""

    state: AccountState
    nodes: tuple[str, ...]
    """Names of the nodes that took it."""
    refused: dict[str, str] = {}
    """Nodes that did not, with their reason."""


class Connection(msgspec.Struct, frozen=True):
    """A client's connection at a node."""

    server_id: str
    cid: int
    nkey: str
    ip: str
    subscriptions: int


async def count_nodes(link: BrokerLink) -> int:
    """How many broker nodes answer now."""
    return len(await _ask_all(link, "$SYS.REQ.SERVER.PING", b"", timeout_s=0.5))


async def held_accounts(link: BrokerLink, account: str, *, nodes: int = 1) -> tuple[AccountState, ...]:
    """What the nodes hold for an account; nodes that hold nothing readable are left out."""
    answers = await link.collect(
        f"$SYS.REQ.ACCOUNT.{account}.CLAIMS.LOOKUP", b"", timeout_s=ANSWER_TIMEOUT_S, count=nodes
    )
    states: list[AccountState] = []
    for answer in answers:
        try:
            states.append(read_account(answer.payload.decode(errors="replace")))
        except BadJwtError:
            _log.warning("a broker node holds no readable account token")
    return tuple(states)


async def push_account(
    link: BrokerLink,
    issuer: FleetIssuer,
    revocations: Mapping[str, int],
    *,
    serial: int,
    nodes: int = 1,
    clock: Clock | None = None,
) -> Push:
    """Builds the FLEET account's next token from `revocations` and all that the nodes hold, and hands it to them.

    `serial` is the last one used; callers keep the returned `state.serial` and hold a lock of their own around this.
    Live connections of a revoked key are cut by the node within milliseconds of taking the token.
    """
    held = await held_accounts(link, issuer.keys.fleet_account, nodes=nodes)
    state = plan_account(revocations, held, serial=serial, now=(clock or SystemClock()).now())
    return await push_state(link, issuer, state, nodes=nodes)


async def push_state(link: BrokerLink, issuer: FleetIssuer, state: AccountState, *, nodes: int = 1) -> Push:
    """Hands exactly this state to the nodes: for a node that appeared, the one last pushed."""
    token = issuer.account_jwt(state).encode()
    subject = f"$SYS.REQ.ACCOUNT.{issuer.keys.fleet_account}.CLAIMS.UPDATE"
    taken: list[str] = []
    refused: dict[str, str] = {}
    for answer in await _ask_all(link, subject, token, count=nodes):
        if answer.data.get("code") == _OK:
            taken.append(answer.server.name)
        else:
            refused[answer.server.name] = str(answer.error.get("description") or answer.data.get("message") or "")
    return Push(state=state, nodes=tuple(sorted(taken)), refused=refused)


async def list_connections(link: BrokerLink, nkey: str, *, nodes: int = 1) -> tuple[Connection, ...]:
    """The live connections of a user nkey, on all nodes."""
    query = msgspec.json.encode({"auth": True, "user": nkey})
    found: list[Connection] = []
    for answer in await _ask_all(link, "$SYS.REQ.SERVER.PING.CONNZ", query, count=nodes):
        listed = msgspec.convert(answer.data.get("connections") or [], list[_Listed])
        found += [Connection(answer.server.id, each.cid, nkey, each.ip, each.subscriptions) for each in listed]
    return tuple(found)


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """What one connection has sent since it began."""

    connection: Connection
    messages: int
    size_bytes: int


async def list_use(link: BrokerLink, account: str) -> tuple[Use, ...]:
    """What every live connection of an account has sent so far, on all nodes."""
    nodes, offset, found = max(await count_nodes(link), 1), 0, list[Use]()
    while True:
        query = {"auth": True, "acc": account, "limit": PAGE_COUNT, "offset": offset, "sort": "cid"}
        more = False
        answers = await _ask_all(link, "$SYS.REQ.SERVER.PING.CONNZ", msgspec.json.encode(query), count=nodes)
        for answer in answers:
            listed = msgspec.convert(answer.data.get("connections") or [], list[_Listed])
            more = more or len(listed) == PAGE_COUNT
            for each in listed:
                held = Connection(answer.server.id, each.cid, each.authorized_user, each.ip, each.subscriptions)
                found.append(Use(connection=held, messages=each.in_msgs, size_bytes=each.in_bytes))
        if not more or not answers:
            return tuple(found)
        offset += PAGE_COUNT


async def kick(link: BrokerLink, connection: Connection) -> None:
    """Cuts one connection; its owner may come back at once, unless it is also revoked."""
    payload = msgspec.json.encode({"cid": connection.cid})
    await link.request(f"$SYS.REQ.SERVER.{connection.server_id}.KICK", payload, timeout_s=ANSWER_TIMEOUT_S)


class NodeWatch:
    """Calls back for every broker node not seen before in this watch, restarted nodes included."""

    def __init__(self, link: BrokerLink, on_node: Callable[[str], Awaitable[None]]) -> None:
        self._link = link
        self._on_node = on_node
        self._seen: set[str] = set()
        self._one_at_a_time = asyncio.Lock()

    async def start(self) -> None:
        """Begins to listen; nodes report by themselves within a second of their start and then every 10 s."""
        await self._link.subscribe("$SYS.SERVER.*.STATSZ", self._on_statsz)

    async def _on_statsz(self, message: Incoming) -> None:
        answer = _parse(message)
        if answer is None or answer.server.id in self._seen:
            return
        async with self._one_at_a_time:
            await self._on_node(answer.server.name)
            self._seen.add(answer.server.id)


async def _ask_all(
    link: BrokerLink, subject: str, payload: bytes, *, count: int = NODES_MAX, timeout_s: float = ANSWER_TIMEOUT_S
) -> list[_Answer]:
    answers = await link.collect(subject, payload, timeout_s=timeout_s, count=count)
    return [parsed for parsed in map(_parse, answers) if parsed is not None]


def _parse(message: Incoming) -> _Answer | None:
    try:
        return msgspec.json.decode(message.payload, type=_Answer)
    except msgspec.MsgspecError:
        _log.warning("a broker node's answer cannot be read", subject=message.subject)
        return None
