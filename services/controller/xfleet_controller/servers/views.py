"""A server as the panel shows it; figures are None while nobody knows them, never the last ones frozen."""

import re
from datetime import datetime

import msgspec

from xfleet_controller.panel.views import FormView, OptionView, PagingView


class UsageView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that fills up: memory, swap or disk."""

    used_bytes: int
    total_bytes: int

    @property
    def percent(self) -> float:
        """Share in use, 0 to 100."""
        return 100 * self.used_bytes / self.total_bytes if self.total_bytes else 0.0


class ProblemView(msgspec.Struct, frozen=True, kw_only=True):
    """Something a person should look at."""

    tone: str
    """danger or warning"""
    text: str
    server_id: int = 0
    server_name: str = ""


class ServerCardView(msgspec.Struct, frozen=True, kw_only=True):
    """The live card of one server."""

    id: int
    slug: str
    name: str
    public_address: str
    status: str
    """online, stale, offline or pending (never seen)"""
    standing: str = "active"
    """What people decided: active, drain, maintenance, disabled or retiring."""
    region: str = ""
    reason: str = ""
    """Why it is not online, in a sentence."""
    problems: tuple[ProblemView, ...] = ()
    last_seen_at: datetime | None = None
    last_error: str = ""
    tags: tuple[str, ...] = ()
    notes: str = ""
    cpu_percent: float | None = None
    cpu_count: int | None = None
    load_1m: float | None = None
    memory: UsageView | None = None
    swap: UsageView | None = None
    disk: UsageView | None = None
    up_bytes_per_s: float | None = None
    down_bytes_per_s: float | None = None
    down_spark: tuple[float, ...] = ()
    up_spark: tuple[float, ...] = ()
    clients_online: int | None = None
    clients_total: int = 0
    xray_state: str = "unknown"
    """running, starting, stopped, crashed or unknown"""
    xray_version: str = ""
    agent_version: str = ""
    os_name: str = ""
    host_uptime_s: int | None = None
    xray_uptime_s: int | None = None
    desired_revision: int = 0
    applied_revision: int | None = None
    cut_count: int = 0
    """Clients this server has cut off by itself."""

    @property
    def live(self) -> bool:
        """Whether the figures are current."""
        return self.status == "online"

    @property
    def in_sync(self) -> bool:
        """Whether the server runs what is wanted."""
        return self.applied_revision == self.desired_revision

    @property
    def rank(self) -> int:
        """Where it stands in a list that shows trouble first."""
        tones = [problem.tone for problem in self.problems]
        return 0 if "danger" in tones else 1 if tones else 2

    @property
    def order(self) -> tuple[int, tuple[tuple[int, str], ...]]:
        """The key to sort cards by: trouble first, then names as people count them, 9 before 10."""
        parts = re.findall(r"[0-9]{1,12}|[^0-9]+", self.name.casefold())
        return self.rank, tuple((int(part), "") if part.isascii() and part.isdigit() else (-1, part) for part in parts)


class DegradedEntityView(msgspec.Struct, frozen=True, kw_only=True):
    """An entity the server could not apply."""

    kind: str
    name: str
    path: str
    code: str
    reason: str
    kept: bool
    """Whether its last good version goes on running."""


class ReplacedView(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the replacement of a machine."""

    done: bool
    at: datetime
    old_address: str
    new_address: str
    """What links name now."""
    moved: bool
    hosts_count: int = 0
    named: bool = False
    """Whether links name a host name, which only its owner can lead to the new machine."""
    hostname: str = ""


class ServerDetailView(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known about one server beside its card."""

    id: int
    figures_at: datetime | None = None
    """When the figures were told; None when none ever were."""
    figures_live: bool = False
    known: ServerCardView | None = None
    """The last known figures, while the server is away."""
    public_address: str = ""
    reported_address: str = ""
    notes: str = ""
    created_at: datetime | None = None
    agent_started_at: datetime | None = None
    link: str = ""
    clock_offset_ms: int | None = None
    credentials_expire_at: datetime | None = None
    upgradable: bool = False
    free_state_bytes: int | None = None
    xray_source: str = ""
    xray_started_at: datetime | None = None
    xray_restarts_count: int | None = None
    host_started_at: datetime | None = None
    kernel: str = ""
    hostname: str = ""
    connections_count: int | None = None
    spool_batches_count: int | None = None
    desired_revision: int = 0
    wanted_revision: int = 0
    applied_revision: int = 0
    changed_at: datetime | None = None
    drift_at: datetime | None = None
    degraded: tuple[DegradedEntityView, ...] = ()
    replaced: ReplacedView | None = None
    retiring_at: datetime | None = None
    retiring_waits_for: str = ""


class ServersPageView(msgspec.Struct, frozen=True, kw_only=True):
    """The list of servers with its filters."""

    servers: tuple[ServerCardView, ...]
    as_table: bool = False
    search: str = ""
    tag: str = ""
    region: str = ""
    status: str = ""
    tags: tuple[OptionView, ...] = ()
    regions: tuple[OptionView, ...] = ()
    statuses: tuple[OptionView, ...] = ()
    view: str = ""
    """cards or table when somebody chose; empty: by their number."""
    paging: PagingView | None = None
    total: int = 0
    """How many there are without filters."""

    @property
    def filtered(self) -> bool:
        """Whether the list shows less than everything on purpose."""
        return bool(self.search or self.tag or self.region or self.status)

    @property
    def query(self) -> dict[str, str]:
        """The filters, for links."""
        return {
            "search": self.search, "tag": self.tag, "region": self.region, "status": self.status, "view": self.view,
        }  # fmt: skip


class ServerFormView(msgspec.Struct, frozen=True, kw_only=True):
    """The form that adds a server (`id` is None) or edits one."""

    id: int | None
    slug: str
    form: FormView
    theirs: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    """What somebody else saved meanwhile, by field."""


class LossView(msgspec.Struct, frozen=True, kw_only=True):
    """An inbound that goes with its server."""

    title: str
    port: int
    clients_count: int


class ServerDeleteView(msgspec.Struct, frozen=True, kw_only=True):
    """What deleting a server takes away."""

    id: int
    name: str
    status: str
    retiring: bool
    joined: bool
    """Whether an agent ever joined as it."""
    losses: tuple[LossView, ...] = ()
    last_seen_at: datetime | None = None
    warning: str = ""
    """What may keep running when it is forced."""
    error: str = ""


class DialView(msgspec.Struct, frozen=True, kw_only=True):
    """What came of dialling one address of the broker."""

    url: str
    ok: bool
    reason: str = ""


class BrokerFormView(msgspec.Struct, frozen=True, kw_only=True):
    """The step that makes sure that machines elsewhere can reach the broker."""

    id: int
    name: str
    form: FormView
    replaces: bool = False
    listens_here: bool = False
    """Whether its listener must be opened to the outside."""
    dials: tuple[DialView, ...] = ()


class JoinView(msgspec.Struct, frozen=True, kw_only=True):
    """The line, and whether its machine has come."""

    id: int
    name: str
    line: str
    expires_at: datetime
    replaces: bool
    live_url: str
    waiting: "WaitingView"


class WaitingView(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the machine of a line has come."""

    id: int
    state: str
    """waiting, enrolled or online"""
    agent_version: str = ""
    expired: bool = False


class ReplaceView(msgspec.Struct, frozen=True, kw_only=True):
    """Asks before a line is made, for the first machine or in place of another."""

    id: int
    name: str
    address: str
    form: FormView
    here_only: bool = False
    """Whether the line would only work on this machine, and somebody has to say that this is meant."""


class IdentityView(msgspec.Struct, frozen=True, kw_only=True):
    """One identity of a server."""

    nkey: str
    source: str
    status: str
    """good, expired or revoked"""
    reason: str
    issued_at: datetime
    expires_at: datetime


class IdentitiesView(msgspec.Struct, frozen=True, kw_only=True):
    """What a server signs in with, and the form that takes it back."""

    id: int
    name: str
    rows: tuple[IdentityView, ...]
    may_revoke: bool
    may_lift: bool = False
    """It is suspended, and who looks may let it back."""
    form: FormView = FormView(values={})
