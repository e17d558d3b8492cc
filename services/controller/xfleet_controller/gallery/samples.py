"""Made-up view objects in every state, for the gallery and for looking at pages without a fleet."""

from datetime import datetime, timedelta

from xfleet_controller.auth.views import LoginView
from xfleet_controller.clients.views import ClientDetailView, ClientFormView, ClientRowView, ClientsPageView, LinkView
from xfleet_controller.dashboard.views import DashboardView, ProblemsView, TotalsView, TrafficChartView
from xfleet_controller.gallery.server_samples import (
    GB,
    LONG,
    MB,
    SERVER_NAMES,
    broker_form,
    identities,
    join,
    replace,
    server,
    server_deletion,
    server_detail,
    server_form,
    server_new,
    servers_page,
    wave,
)
from xfleet_controller.inbounds.views import InboundFormView, InboundRowView, InboundsPageView
from xfleet_controller.panel.qr import qr_svg
from xfleet_controller.panel.views import ErrorView, FormView, OptionView, PagingView, ShellView
from xfleet_controller.settings.views import BindingView, BotCodeView, SessionRowView, SettingsView, TotpView
from xfleet_controller.tasks.views import DegradedView, TaskDetailView, TaskRowView, TasksPageView

SUBSCRIPTION = "https://panel.example.com/x7k2/sub/q8Zt3mVw0aPfK1Lc"
LINK = (
    "vless://6ba7b810-9dad-41d1-80b4-00c04fd430c8@fra.example.com:443?type=tcp&encryption=none&security=reality"
    "&pbk=Jq0mC0xUO2xg2mVnYQ9kzH0Yw1c2pX3s4t5u6v7w8x9&fp=chrome&sni=www.example.com&sid=3fa9c1d2&flow=xtls-rprx-vision#fra"
)


def shell(*, single_server: bool = False, direction: str = "ltr") -> ShellView:
    """The frame for a made-up owner."""
    return ShellView(
        username="admin",
        role="owner",
        csrf_token="sample",  # noqa: S106  # not a secret: a sample
        single_server=single_server,
        version="0.1.0",
        running_tasks=2,
        servers=()
        if single_server
        else tuple(OptionView(value=str(number), label=name) for number, name in enumerate(SERVER_NAMES, 1)),
        scope_path="" if single_server else "/",
        language="fa" if direction == "rtl" else "en",
        direction=direction,
    )


def tasks(now: datetime) -> tuple[TaskRowView, ...]:
    """A task in every status."""
    statuses = ("running", "completed", "degraded", "failed", "pending", "expired")
    errors = {
        "degraded": "inbounds/edge-ws: port 443 is taken by another program",
        "failed": "Xray refused the configuration",
        "expired": "the server did not come back within 10 minutes",
    }
    operations = ("Add client alice", "Apply revision 41", "Add inbound edge-ws", "Restart Xray", "Apply revision 42")
    return tuple(
        TaskRowView(
            id=1041 - number,
            server_name=("Frankfurt", "Amsterdam", "Helsinki")[number % 3],
            operation=operations[number % len(operations)],
            status=status,
            created_at=now - timedelta(seconds=7 + number * 95),
            completed_at=None
            if status in {"running", "pending"}
            else now - timedelta(seconds=6.7 + number * 95 - number),
            error=errors.get(status, ""),
            revision=41 - number,
        )
        for number, status in enumerate(statuses)
    )


def chart(now: datetime, range_: str = "1h") -> TrafficChartView:
    """An hour of traffic with a gap in it."""
    count, step_s = 180, 20
    start_s = int(now.timestamp()) - count * step_s
    down, up = wave(count, 24_000_000, 0.3), wave(count, 7_000_000, 1.9)
    gap = range(96, 104)
    return TrafficChartView(
        range=range_,
        at_s=tuple(start_s + index * step_s for index in range(count)),
        up_bytes_per_s=tuple(None if index in gap else value for index, value in enumerate(up)),
        down_bytes_per_s=tuple(None if index in gap else value for index, value in enumerate(down)),
    )


def dashboard(now: datetime, *, servers: int = 8, fresh: bool = False) -> DashboardView:
    """A dashboard; a fresh one has nothing on it yet."""
    cards = tuple(
        server(number, now, status={5: "offline", 7: "stale"}.get(number, "online")) for number in range(1, servers + 1)
    )
    return DashboardView(
        totals=TotalsView(
            servers_online=servers if fresh else max(1, servers - 1),
            servers_total=servers,
            clients_online=0 if fresh else 2503,
            clients_total=0 if fresh else 10412,
            up_bytes_per_s=0.0 if fresh else 65_400_000,
            down_bytes_per_s=0.0 if fresh else 202_700_000,
            up_bytes=0 if fresh else 812 * GB,
            down_bytes=0 if fresh else 3400 * GB,
        ),
        chart=TrafficChartView(range="1h") if fresh else chart(now),
        servers=cards,
        tasks=() if fresh else tasks(now),
        problems=ProblemsView(problems=tuple(each for card in cards for each in card.problems), more_count=0),
        has_inbound=not fresh,
        has_client=not fresh,
    )


def client_row(number: int, now: datetime) -> ClientRowView:
    """One client in one of the states."""
    names = ("alice", "bob", "carol-phone", "دستگاه-علی", "dmitri", LONG, "eve", "frank")
    states = ("active", "active", "expiring", "active", "depleted", "disabled", "expired", "active")
    quotas = (0, 50 * GB, 100 * GB, 20 * GB, 5 * GB, 10 * GB, 30 * GB, 0)
    used = (1_734 * MB, 11 * GB, 87 * GB, 312, 5 * GB, 0, 29 * GB, 250 * GB)
    index = (number - 1) % len(names)
    return ClientRowView(
        id=number,
        name=names[index],
        state=states[index],
        online=index in {0, 2, 7},
        enabled=states[index] != "disabled",
        up_bytes=used[index] // 9,
        down_bytes=used[index] - used[index] // 9,
        total_bytes=quotas[index],
        expires_at={2: now + timedelta(days=2, hours=5), 6: now - timedelta(days=3)}.get(
            index, None if index % 2 else now + timedelta(days=40 + index)
        ),
        last_online_at={1: now - timedelta(hours=3), 4: now - timedelta(minutes=9)}.get(index),
        comment="pays yearly" if index == 1 else "",
        inbounds=("fra-reality", "ams-reality", "edge-ws", "hel-reality")[: 1 + index % 4],
    )


def clients_page(now: datetime, *, rows: int = 8, search: str = "") -> ClientsPageView:
    """The list of clients, possibly empty."""
    names = {"active": "Active", "expiring": "Expiring", "expired": "Expired", "depleted": "Depleted"}
    names |= {"disabled": "Disabled", "online": "Online now"}
    return ClientsPageView(
        rows=tuple(client_row(number, now) for number in range(1, rows + 1)),
        paging=PagingView(page=3 if rows else 1, page_size=25, total=10412 if rows else 0),
        states=tuple(OptionView(value=value, label=label) for value, label in names.items()),
        search=search,
    )


def client_detail(now: datetime) -> ClientDetailView:
    """A client with two links."""
    return ClientDetailView(
        row=client_row(3, now),
        subscription_url=SUBSCRIPTION,
        subscription_qr_svg=qr_svg(SUBSCRIPTION),
        links=(
            LinkView(remark="fra-reality", server_name="Frankfurt", url=LINK, qr_svg=qr_svg(LINK)),
            LinkView(remark="edge-ws", server_name="Amsterdam", url=LINK.replace("fra", "ams"), qr_svg=qr_svg(LINK)),
        ),
        created_at=now - timedelta(days=61),
        address_warning="Frankfurt advertises 10.0.0.5, a private address. Set its public address.",
    )


def client_form(*, adding: bool = True, wrong: bool = False) -> ClientFormView:
    """The client form, also with every kind of error."""
    inbounds = (
        OptionView(value="1", label="fra-reality", hint="Frankfurt · VLESS raw Reality · 443", chosen=True),
        OptionView(value="2", label="edge-ws", hint="Amsterdam · VLESS WebSocket · 8080"),
    )
    units = tuple(OptionView(value=unit, label=unit) for unit in ("MB", "GB", "TB"))
    errors = {"name": "A client named alice exists already.", "quota": "Not a number.", "inbound_ids": "Choose one."}
    values = {"name": "alice", "quota": "ten", "quota_unit": "GB", "enabled": "on"} if wrong else {"enabled": "on"}
    form = FormView(
        values={"quota_unit": "GB", **values},
        errors=errors if wrong else {},
        options={"inbound_ids": inbounds, "quota_unit": units},
    )
    return ClientFormView(id=None if adding else 3, form=form)


def inbounds_page(*, rows: int = 5) -> InboundsPageView:
    """Inbounds in every status."""
    statuses = ("live", "pending", "degraded", "disabled", "offline")
    return InboundsPageView(
        rows=tuple(
            InboundRowView(
                id=index + 1,
                remark=("fra-reality", "edge-ws", "", LONG, "hel-reality")[index],
                server_id=index + 1,
                server_name=("Frankfurt", "Amsterdam", "Paris", "Istanbul", "Helsinki")[index],
                listen="" if index != 1 else "127.0.0.1",
                port=443 + index * 1000,
                protocol="vless",
                network="ws" if index == 1 else "raw",
                security="none" if index == 1 else "reality",
                enabled=statuses[index] != "disabled",
                status=statuses[index],
                status_reason="port 2443 is taken by another program" if statuses[index] == "degraded" else "",
                clients_total=index * 120,
                clients_online=index * 14,
                up_bytes=index * 40 * GB,
                down_bytes=index * 390 * GB,
            )
            for index in range(rows)
        )
    )


def inbound_form(*, wrong: bool = False) -> InboundFormView:
    """The inbound form as it opens, or refused."""
    kinds = (
        OptionView(value="reality", label="VLESS + Reality", hint="Looks like a real TLS site. The best default."),
        OptionView(value="ws", label="VLESS + WebSocket", hint="Without TLS, for behind a CDN or proxy."),
        OptionView(value="custom", label="Xray JSON", hint="You write it all yourself."),
    )
    servers = (OptionView(value="1", label="Frankfurt"), OptionView(value="2", label="Amsterdam"))
    values = {
        "preset": "reality",
        "port": "443",
        "server_id": "1",
        "reality_target": "www.example.com:443",
        "reality_server_names": "www.example.com",
        "ws_path": "/",
        "enabled": "on",
    }
    errors = {"": "The server refused this inbound.", "port": "Port 443 is taken on this server by fra-reality."}
    errors |= {"settings": "Not JSON: line 3 expects a comma."}
    form = FormView(values=values, errors=errors if wrong else {}, options={"preset": kinds, "server_id": servers})
    return InboundFormView(id=None, form=form, advanced=wrong)


def task_detail(now: datetime) -> TaskDetailView:
    """A degraded task with its culprit."""
    return TaskDetailView(
        row=tasks(now)[2],
        degraded=(
            DegradedView(
                path="inbounds/edge-ws/port", code="port_taken", reason="Port 443 is taken by nginx (pid 612)"
            ),
        ),
        error_code="degraded",
        attempts=2,
        started_at=now - timedelta(minutes=3),
        ordered_by="admin",
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
        command_id="019ab8e34f7c5d2f41c8a7b6",
        request='{\n  "entities": [["inbound", "1234567890123"]]\n}',
        response='{\n  "steps_count": 3,\n  "restarted": false\n}',
    )


def tasks_page(now: datetime, *, rows: int = 6) -> TasksPageView:
    """The task list, possibly empty."""
    words = ("pending", "running", "completed", "degraded", "failed", "expired", "cancelled")
    return TasksPageView(
        rows=tasks(now)[:rows],
        paging=PagingView(page=1, page_size=50, total=rows),
        statuses=tuple(OptionView(value=word, label=word.capitalize()) for word in words),
        servers=(OptionView(value="1", label="Frankfurt"), OptionView(value="2", label="Amsterdam")),
    )


def settings_page(now: datetime, totp: TotpView | None = None) -> SettingsView:
    """Settings with a fresh bot code and a wrong password."""
    return SettingsView(
        username="admin",
        password_length=8,
        password_form=FormView(values={}, errors={"current_password": "That is not the current password."}),
        bot_code=BotCodeView(code="7F3K-92QX", expires_at=now + timedelta(minutes=15)),
        bindings=(BindingView(telegram_id=5000000001, name="Anna", created_at=now - timedelta(days=3)),),
        totp=totp or TotpView(),
        sessions=(
            SessionRowView(id="a1", user_agent="Firefox on Linux", address="192.0.2.7", last_seen_at=now, current=True),
            SessionRowView(
                id="b2",
                user_agent=LONG,
                address="2001:db8:1:2::7",
                last_seen_at=now - timedelta(hours=9),
                current=False,
            ),
        ),
        versions=(("xfleet", "0.1.0"), ("Xray", "26.2.6"), ("nats-server", "2.15.1")),
    )


def login(*, wrong: bool = False) -> LoginView:
    """The sign-in form, also after a wrong password."""
    errors = {"": "User name or password is wrong."} if wrong else {}
    return LoginView(form=FormView(values={"username": "admin"} if wrong else {}, errors=errors))


def errors() -> tuple[ErrorView, ...]:
    """The error pages."""
    return (
        ErrorView(status=403, title="Not allowed", message="Your role may look at this but not change it."),
        ErrorView(status=404, title="Nothing here", message="This page does not exist, or no longer."),
        ErrorView(
            status=500,
            title="Something broke",
            message="It is logged. Try again; if it stays, quote the error id.",
            error_id="e-7f3k92qx",
        ),
    )


__all__ = [
    "broker_form", "identities", "join", "replace", "server", "server_deletion", "server_detail", "server_form",
    "server_new",
    "servers_page",
]  # fmt: skip
