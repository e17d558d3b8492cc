"""Who may say what on the bus, as data: one role per scoped signing key.

`{{name()}}` is replaced by the broker with the name in the user's JWT, verbatim, which is why the issuer lets only
slugs be names. nats-server checks the subject of a publication but never its *reply* subject; hence whoever answers
agents (`rpc`) may publish to inboxes and nothing else, and whoever may change streams (`ctl`) never answers.
"""

import re

import msgspec

from xfleet_contracts import streams, subjects
from xfleet_runtime.keys.jwt import NO_LIMIT, SubjectRights, Template

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
"""What may be a name in a JWT; compared with `fullmatch`."""

FLEET = "FLEET"
SYSTEM = "SYS"

AGENT_PAYLOAD_BYTES = 256 * 1024
AGENT_SUBSCRIPTIONS = 64
ANSWER_WITHIN_S = 330
"""How long an agent may take to answer a command: longer than the longest of `commands.TIMEOUT_S`."""
ENROLL_PAYLOAD_BYTES = 16 * 1024
_OWN = "{{name()}}"
_EVERYWHERE = ("STANDARD", "WEBSOCKET")
_BOT = f"{streams.BOT_CONSUMER.stream}.{streams.BOT_CONSUMER.durable}"
_LOOK_AT_STREAMS = (
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.INFO.*",
    "$JS.API.CONSUMER.NAMES.*",
    "$JS.API.CONSUMER.LIST.*",
    "$JS.API.CONSUMER.INFO.*.*",
)
_LOOK_AT_SERVICES = ("$SRV.PING", "$SRV.PING.>", "$SRV.INFO", "$SRV.INFO.>", "$SRV.STATS", "$SRV.STATS.>")
_SERVER_FACTS = ("CONNZ", "JSZ", "VARZ", "STATSZ", "HEALTHZ", "ROUTEZ")


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of connection and its rights."""

    name: str
    inbox: str
    """Letter of its inboxes: `_INBOX.<letter>.<name>`."""
    template: Template
    account: str = FLEET

    @property
    def by_websocket(self) -> bool:
        """Whether it may come in by `wss://`."""
        return "WEBSOCKET" in self.template.connection_types

    def inbox_prefix(self, name: str) -> str:
        """Where the connection of that name gets its answers."""
        return f"_INBOX.{self.inbox}.{name}"


def _role(
    name: str,
    inbox: str,
    *,
    publish: tuple[str, ...],
    subscribe: tuple[str, ...] = (),
    account: str = FLEET,
    responses: tuple[int, int] = (0, 0),
    payload_bytes: int = NO_LIMIT,
    subscriptions: int = NO_LIMIT,
    connection_types: tuple[str, ...] = ("STANDARD",),
) -> Role:
    template = Template(
        publish=SubjectRights(allow=publish),
        subscribe=SubjectRights(allow=(*subscribe, f"_INBOX.{inbox}.{_OWN}.>")),
        responses_max=responses[0],
        responses_ttl_s=responses[1],
        payload_max_bytes=payload_bytes,
        subscriptions_max=subscriptions,
        connection_types=connection_types,
    )
    return Role(name=name, inbox=inbox, template=template, account=account)


AGENT = _role(
    "agent",
    "a",
    publish=(f"fleet.up.{_OWN}.>", f"fleet.rpc.{_OWN}.>"),
    subscribe=(subjects.commands(_OWN),),
    responses=(64, ANSWER_WITHIN_S),
    payload_bytes=AGENT_PAYLOAD_BYTES,
    subscriptions=AGENT_SUBSCRIPTIONS,
    connection_types=_EVERYWHERE,
)
"""An enrolled server: speaks as itself only, hears its own commands only, answers what it was asked."""

RPC = _role(
    "rpc",
    "r",
    publish=("_INBOX.a.*.>", "_INBOX.e.*.>", "_INBOX.o.>"),
    subscribe=("fleet.rpc.>", subjects.ALL_ENROLLMENTS, "fleet.up.*.blob.>", "$SRV.>"),
)
"""The controller's connection that answers agents and those enrolling: it can reach inboxes and nothing else."""

CTL = _role(
    "ctl",
    "c",
    publish=("fleet.cmd.>", subjects.ALL_EVENTS, "$JS.API.>", "$JS.ACK.>", "$KV.>", "$O.>"),
    subscribe=("fleet.up.>", "$JS.EVENT.ADVISORY.>"),
)
"""The controller's connection that commands, ingests and owns the streams: it never answers anybody."""

SVC = _role(
    "svc",
    "v",
    publish=("_INBOX.b.>", "_INBOX.o.>"),
    subscribe=("fleet.ctl.>", "$SRV.>"),
)
"""The controller's connection that answers bot and command line."""

BOT = _role(
    "bot",
    "b",
    publish=(
        subjects.ALL_CONTROLS,
        f"$JS.API.CONSUMER.MSG.NEXT.{_BOT}",
        f"$JS.API.CONSUMER.INFO.{_BOT}",
        f"$JS.ACK.{_BOT}.>",
        f"$JS.ACK._.*.{_BOT}.>",
    ),
    subscribe=(subjects.ALL_EVENTS,),
    payload_bytes=AGENT_PAYLOAD_BYTES,
    subscriptions=AGENT_SUBSCRIPTIONS,
)
"""The Telegram bot, which is believed for which Telegram account it asks: nobody else may ask where it asks.

Acknowledgements in both spellings; the newer one names the domain, `_` for none: a `*` there would also match
acknowledgements of other streams in the older spelling.
"""

ENROLL = _role(
    "enroll",
    "e",
    publish=(subjects.enroll(_OWN),),
    payload_bytes=ENROLL_PAYLOAD_BYTES,
    subscriptions=4,
    connection_types=_EVERYWHERE,
)
"""Whoever holds an enrollment token, named by the token's id."""

CLI = _role(
    "cli",
    "o",
    publish=(subjects.ALL_CLI_CONTROLS, *_LOOK_AT_SERVICES, *_LOOK_AT_STREAMS),
    subscribe=(subjects.ALL_HEARTBEATS, subjects.ALL_EVENTS),
    payload_bytes=AGENT_PAYLOAD_BYTES,
    subscriptions=AGENT_SUBSCRIPTIONS,
)
"""The operator's own command line: asks and orders through the controller, and looks."""

OPS_RO = _role(
    "ops-ro",
    "o",
    publish=(*_LOOK_AT_SERVICES, *_LOOK_AT_STREAMS),
    subscribe=(subjects.ALL_HEARTBEATS, subjects.ALL_EVENTS),
    payload_bytes=AGENT_PAYLOAD_BYTES,
    subscriptions=AGENT_SUBSCRIPTIONS,
)
"""Looking without touching, as the NATS command line does."""

SYS = _role(
    "sys",
    "s",
    publish=(
        "$SYS.REQ.CLAIMS.UPDATE",
        "$SYS.REQ.ACCOUNT.*.CLAIMS.UPDATE",
        "$SYS.REQ.ACCOUNT.*.CLAIMS.LOOKUP",
        "$SYS.REQ.SERVER.PING",
        "$SYS.REQ.SERVER.*.KICK",
        *(f"$SYS.REQ.SERVER.PING.{fact}" for fact in _SERVER_FACTS),
        *(f"$SYS.REQ.SERVER.*.{fact}" for fact in _SERVER_FACTS),
    ),
    subscribe=("$SYS.SERVER.*.STATSZ", "$SYS.ACCOUNT.>"),
    account=SYSTEM,
)
"""The controller's connection to the broker itself: revocations, kicks, who came and went."""

ROLES: dict[str, Role] = {role.name: role for role in (AGENT, RPC, CTL, SVC, BOT, ENROLL, CLI, OPS_RO, SYS)}
