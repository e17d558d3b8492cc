"""Made-up servers, alone and in lists, and the dialogs around them."""

import math
from datetime import datetime, timedelta

from xfleet_controller.panel.views import FormView, OptionView, PagingView
from xfleet_controller.servers.condition import NEVER_JOINED, REASONS, SILENT
from xfleet_controller.servers.present import mode_options
from xfleet_controller.servers.removal import MAY_KEEP_RUNNING
from xfleet_controller.servers.views import (
    BrokerFormView,
    DegradedEntityView,
    DialView,
    IdentitiesView,
    IdentityView,
    JoinView,
    LossView,
    ProblemView,
    ReplacedView,
    ReplaceView,
    ServerCardView,
    ServerDeleteView,
    ServerDetailView,
    ServerFormView,
    ServersPageView,
    UsageView,
    WaitingView,
)

GB = 1024**3
MB = 1024**2
LONG = "Ludwig-Maximilians-Universitätsbibliothek-Zweigstelle-Großhadern-Anschlussrechner-17"
SERVER_NAMES = ("Frankfurt", "Amsterdam", "Helsinki", "New York", "Singapore", "Istanbul", "Paris", LONG)


def wave(count: int, height: float, phase: float) -> tuple[float, ...]:
    """A rate that looks like traffic."""
    return tuple(
        height * (0.55 + 0.33 * math.sin(index / 9 + phase) + 0.12 * math.sin(index * 1.7 + phase * 3))
        for index in range(count)
    )


def server(number: int, now: datetime, *, status: str = "online") -> ServerCardView:
    """One server of the sample fleet."""
    name = SERVER_NAMES[(number - 1) % len(SERVER_NAMES)]
    common = {"id": number, "slug": f"srv-{number:02}", "name": name, "public_address": f"vpn{number}.example.com"}
    if status == "pending":
        return ServerCardView(**common, status=status, reason=REASONS[NEVER_JOINED])  # pyright: ignore[reportArgumentType]
    if status == "offline":
        return ServerCardView(
            **common,  # pyright: ignore[reportArgumentType]
            status=status,
            last_seen_at=now - timedelta(minutes=17),
            reason=REASONS[SILENT],
            region="Netherlands",
            problems=(ProblemView(tone="danger", text=REASONS[SILENT], server_id=number, server_name=name),),
            desired_revision=41,
            applied_revision=39,
        )
    return ServerCardView(
        **common,  # pyright: ignore[reportArgumentType]
        status=status,
        last_seen_at=now - timedelta(seconds=4),
        tags=("eu", "fast"),
        region="Germany",
        standing={4: "drain", 5: "maintenance", 6: "disabled"}.get(number, "active"),
        problems=()
        if number != 3  # noqa: PLR2004
        else (ProblemView(tone="warning", text="Its clock is 95 s off.", server_id=number, server_name=name),),
        cpu_percent=float((number * 23) % 97),
        cpu_count=2 + number % 3 * 2,
        load_1m=0.42,
        memory=UsageView(used_bytes=int((0.2 + number % 7 / 10) * 4 * GB), total_bytes=4 * GB),
        swap=UsageView(used_bytes=0, total_bytes=GB),
        disk=UsageView(used_bytes=(9 + number * 3) * GB, total_bytes=40 * GB),
        up_bytes_per_s=number * 412_000.0,
        down_bytes_per_s=number * 3_700_000.0,
        down_spark=wave(60, number * 3_700_000.0, number),
        up_spark=wave(60, number * 900_000.0, number + 1),
        clients_online=number * 17,
        clients_total=number * 40,
        xray_state="crashed" if number == 6 else "running",  # noqa: PLR2004
        xray_version="26.2.6",
        agent_version="0.1.0",
        os_name="Debian 12 · x86-64",
        host_uptime_s=86400 * 31 + 7 * 3600,
        xray_uptime_s=3600 * 52 + 340,
        desired_revision=41,
        applied_revision=40 if number == 3 else 41,  # noqa: PLR2004
    )


def servers_page(now: datetime, *, rows: int = 8, search: str = "") -> ServersPageView:
    """The list of servers, possibly empty."""
    statuses = ("online", "stale", "offline", "pending", "online", "online", "online", "online")
    return ServersPageView(
        servers=tuple(
            server(number, now, status=statuses[(number - 1) % len(statuses)]) for number in range(1, rows + 1)
        ),
        as_table=rows > len(statuses),
        search=search,
        tags=tuple(OptionView(value=word, label=word) for word in ("eu", "fast")),
        regions=tuple(OptionView(value=word, label=word) for word in ("Germany", "Netherlands")),
        statuses=tuple(OptionView(value=word, label=word.capitalize()) for word in ("online", "offline", "drain")),
        paging=PagingView(page=1, page_size=50, total=rows),
        total=rows or (40 if search else 0),
    )


def server_detail(number: int, now: datetime, *, status: str) -> ServerDetailView:
    """Everything about one server: one in trouble, one that is away after its machine was replaced."""
    online = status == "online"
    return ServerDetailView(
        id=number,
        figures_at=now - timedelta(seconds=4 if online else 17 * 60),
        figures_live=online,
        known=None if online else server(1, now),
        public_address="vpn.example.com",
        reported_address="198.51.100.7",
        created_at=now - timedelta(days=90),
        agent_started_at=now - timedelta(days=3),
        link="tls://panel.example.com:4222",
        clock_offset_ms=95_000 if online else -12,
        credentials_expire_at=now + timedelta(days=341),
        xray_started_at=now - timedelta(hours=52),
        xray_restarts_count=2,
        host_started_at=now - timedelta(days=31),
        kernel="6.1.0-31-amd64",
        hostname="fra1",
        connections_count=812,
        spool_batches_count=0,
        desired_revision=41,
        wanted_revision=41,
        applied_revision=40 if online else 39,
        changed_at=now - timedelta(minutes=2),
        drift_at=now - timedelta(days=2),
        degraded=(
            DegradedEntityView(
                kind="inbound", name="edge-ws (port 443)", path="inbounds[443].port", code="port_taken",
                reason="Port 443 is taken by nginx (pid 612)", kept=True,
            ),
        )
        if online
        else (),
        replaced=None
        if online
        else ReplacedView(
            done=True, at=now - timedelta(days=1), old_address="203.0.113.9", new_address="198.51.100.7", moved=True,
            hosts_count=2,
        ),
    )  # fmt: skip


def server_form(*, meanwhile: bool = False) -> ServerFormView:
    """The form of one server, also after somebody else saved it."""
    values = {
        "name": "Frankfurt",
        "public_address": "vpn1.example.com",
        "tags": "eu, fast",
        "notes": "",
        "version": "3",
    }
    values |= {"region": "Germany", "mode": "active", "enabled": "on"}
    errors = {"": "Somebody else changed this in the meantime. Nothing was saved: look at both."} if meanwhile else {}
    theirs = {"name": "Frankfurt 1", "tags": ""} if meanwhile else {}
    form = FormView(values=values, errors=errors, options={"mode": mode_options()})
    return ServerFormView(id=1, slug="srv-01", form=form, theirs=theirs)


def server_new() -> ServerFormView:
    """The first step of adding a server, refused."""
    errors = {"name": "Another server has this name.", "public_address": "Another server has this public address."}
    values = {"name": "Frankfurt", "public_address": "vpn1.example.com"}
    return ServerFormView(id=None, slug="", form=FormView(values=values, errors=errors))


def broker_form() -> BrokerFormView:
    """The step about the broker, after a test that failed."""
    reason = "Connection refused. Is the port open in the firewall?"
    return BrokerFormView(
        id=1,
        name="Frankfurt",
        form=FormView(values={"broker_urls": "tls://panel.example.com:4222"}),
        listens_here=True,
        dials=(DialView(url="tls://panel.example.com:4222", ok=False, reason=reason),),
    )


def replace(*, here_only: bool = False) -> ReplaceView:
    """Asks before a line is made."""
    form = FormView(values={}, errors={"": "Another machine cannot fetch the script."} if here_only else {})
    return ReplaceView(id=1, name="Frankfurt", address="203.0.113.9", form=form, here_only=here_only)


def join(now: datetime, *, state: str = "waiting") -> JoinView:
    """The line with its machine on the way, or there."""
    line = "curl -fsSLko /tmp/a.sh https://panel.example.com/x7k2/install/5c1f/agent.sh && sudo sh /tmp/a.sh --token …"
    waiting = WaitingView(id=1, state=state, agent_version="0.1.0")
    expires_at = now + timedelta(minutes=15)
    return JoinView(
        id=1, name="Frankfurt", line=line, expires_at=expires_at, replaces=False, live_url="/x7k2/live", waiting=waiting
    )


def server_deletion(now: datetime) -> ServerDeleteView:
    """What goes with a server that is away."""
    return ServerDeleteView(
        id=1,
        name="Frankfurt",
        status="offline",
        retiring=False,
        joined=True,
        losses=(
            LossView(title="fra-reality", port=443, clients_count=120),
            LossView(title=LONG, port=8443, clients_count=1),
        ),
        last_seen_at=now - timedelta(days=2),
        warning=MAY_KEEP_RUNNING,
    )


def identities(now: datetime) -> IdentitiesView:
    """One identity in each state."""
    year = timedelta(days=365)
    rows = tuple(
        IdentityView(
            nkey=f"U{status.upper()}7Q2MZK4XJ", source=source, status=status, reason=reason,
            issued_at=now - days, expires_at=now - days + year,
        )
        for status, source, reason, days in (
            ("good", "renew", "", timedelta(days=3)),
            ("revoked", "enroll", "enrolled anew", timedelta(days=40)),
            ("expired", "enroll", "", timedelta(days=500)),
        )
    )  # fmt: skip
    return IdentitiesView(id=1, name="Frankfurt", rows=rows, may_revoke=True)
