"""Control: bot and command line ask the controller on behalf of a bound admin or client.

Subject  fleet.ctl.<method> (bot), fleet.ctl.cli.<method> (command line) -> controller, NATS micro service `xfleet`
Rhythm   on demand
Loss     the asker repeats; orders carry an id
"""

from typing import Any, Literal

from xfleet_contracts.errors import Refusal
from xfleet_contracts.message import Message, Secret

STATUS = "status"
BIND = "bind"
WHOAMI = "whoami"
SERVERS = "servers"
DIFF = "diff"
MODE = "mode"
TASKS = "tasks"
TASK = "task"
ORDER = "order"
REVOKE = "revoke"
ENROLL = "enroll"
PROBE = "probe"
METHODS = (STATUS, BIND, WHOAMI, SERVERS, DIFF, MODE, TASKS, TASK, ORDER, REVOKE, ENROLL, PROBE)


class NotBound(Refusal):
    """The Telegram account acts for nobody."""

    code = "not_bound"
    status = 403
    message = "This Telegram account is not bound to an admin."


class BotCodeWrong(Refusal):
    """The bot code is unknown, used or expired; which of them is not told."""

    code = "bot_code_wrong"
    status = 403
    message = "This bot code is not valid. Make a new one in the panel under Settings."


class ControlRateLimited(Refusal):
    """Too many tries by this asker."""

    code = "rate_limited"
    status = 429
    message = "Too many tries. Wait a minute, then try again."


class BindRequest(Message, frozen=True, kw_only=True):
    """`bind`: ties a Telegram account to the admin who made the one-time bot code."""

    telegram_id: int
    code: Secret
    name: str = ""


class NoSuchServer(Refusal):
    """No server has this slug or name."""

    code = "server_unknown"
    status = 404
    message = "There is no such server."


class ActorRequest(Message, frozen=True, kw_only=True):
    """Who asks; `whoami`, `status` and `servers` ask for nothing more."""

    telegram_id: int = 0
    """The bot, and only on its subjects: for whom it asks."""
    token: Secret = ""
    """The command line, and only on its subjects: an API token; its scopes and its admin's role bound what it may."""


class ServerRequest(ActorRequest, frozen=True, kw_only=True):
    """`diff` and `revoke`."""

    server: str
    """Slug or name."""
    reason: str = ""


class ModeRequest(ServerRequest, frozen=True, kw_only=True):
    """`mode`."""

    mode: Literal["active", "drain", "maintenance"]


class OrderRequest(ServerRequest, frozen=True, kw_only=True):
    """`order`: a verb for one server; it becomes a task."""

    id: str
    """Chosen by the asker: the same id is the same order."""
    verb: str
    body: dict[str, Any] = {}


class TasksRequest(ActorRequest, frozen=True, kw_only=True):
    """`tasks`, newest first."""

    server: str = ""
    status: str = ""
    limit: int = 20


class TaskRequest(ActorRequest, frozen=True, kw_only=True):
    """`task`; waits up to `wait_s` for its end, at most 25."""

    task_id: int
    wait_s: float = 0


class EnrollOrder(ActorRequest, frozen=True, kw_only=True):
    """`enroll`: a line that joins a machine, for a new server or, with `server`, in place of that one's machine."""

    name: str = ""
    server: str = ""


class ProbeIdentity(Message, frozen=True, kw_only=True):
    """An identity that may do next to nothing and ends within minutes."""

    jwt: Secret
    seed: Secret
    cert_pem: str
    key_pem: Secret
    inbox_prefix: str


class CertificateProbe(Message, frozen=True, kw_only=True):
    """Answer to `probe`: what `xfleet certs check` tries the broker with."""

    good: ProbeIdentity
    revoked: ProbeIdentity


class JoinLine(Message, frozen=True, kw_only=True):
    """Answer to `enroll`."""

    server: str
    line: Secret
    expires_at_ms: int


class TaskLine(Message, frozen=True, kw_only=True):
    """A task."""

    id: int
    server: str
    operation: str
    status: str
    actor: str = ""
    revision: int | None = None
    created_at_ms: int = 0
    took_ms: int | None = None
    trace_id: str = ""
    error: dict[str, Any] | None = None
    response: Any = None


class TaskLines(Message, frozen=True, kw_only=True):
    """Answer to `tasks`."""

    tasks: tuple[TaskLine, ...]


class StateLine(Message, frozen=True, kw_only=True):
    """One entity in a difference."""

    kind: str
    id: str
    change: Literal["add", "change", "remove", "degraded", "stray"]
    name: str = ""
    """As people know it: an inbound's remark and port, a client's name."""
    text: str = ""
    """What is different, without secrets."""


class ServerDiff(Message, frozen=True, kw_only=True):
    """Answer to `diff`: what a server should run and does not."""

    server: str
    status: str
    desired_revision: int
    wanted_revision: int
    applied_revision: int
    lines: tuple[StateLine, ...] = ()
    more_count: int = 0
    """Lines left out."""


class Done(Message, frozen=True, kw_only=True):
    """Answer to `mode` and `revoke`."""

    server: str
    text: str = ""


class Actor(Message, frozen=True, kw_only=True):
    """Answer to `bind` and `whoami`."""

    admin: str
    role: str


class ServerLine(Message, frozen=True, kw_only=True):
    """One server in a status."""

    slug: str
    name: str
    status: str
    xray: str = ""
    cpu_percent: float = 0
    memory_percent: float = 0
    clients_online_count: int = 0
    up_bytes_s: int = 0
    down_bytes_s: int = 0
    mode: str = "active"
    enabled: bool = True
    agent: str = ""
    """Version."""
    desired_revision: int = 0
    applied_revision: int = 0
    degraded_count: int = 0
    last_seen_at_ms: int = 0


class ServerLines(Message, frozen=True, kw_only=True):
    """Answer to `servers`."""

    servers: tuple[ServerLine, ...]


class FleetStatus(Message, frozen=True, kw_only=True):
    """Answer to `status`."""

    servers: tuple[ServerLine, ...]
    clients_count: int
    clients_online_count: int
    up_bytes: int
    down_bytes: int
