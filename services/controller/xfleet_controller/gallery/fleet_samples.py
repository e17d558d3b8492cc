"""Made-up views of orders, logs and rollouts."""

from datetime import datetime, timedelta

from xfleet_controller.gallery.samples import LONG, tasks
from xfleet_controller.logs.views import LogPageView
from xfleet_controller.orders.views import (
    CertificatesView,
    CertificateView,
    ChecksView,
    CheckView,
    ConfigView,
    OrderFormView,
    OrdersPanelView,
)
from xfleet_controller.panel.views import FormView, OptionView, PagingView
from xfleet_controller.rollouts.views import (
    RolloutDetailView,
    RolloutFormView,
    RolloutRowView,
    RolloutServerView,
    RolloutsPageView,
    WaveView,
)

NAME = "Frankfurt"


def orders(now: datetime, *, online: bool = True) -> OrdersPanelView:
    """The orders of a server."""
    return OrdersPanelView(
        server_id=1,
        server_name=NAME,
        online=online,
        xray_state="running" if online else "unknown",
        tasks=tasks(now)[:4],
    )


def order_form() -> OrderFormView:
    """An order's form, empty."""
    return OrderFormView(server_id=1, server_name=NAME, form=FormView(values={}))


def install_form() -> OrderFormView:
    """An Xray to install, refused."""
    values = {"version": "26.2.6", "url": "ftp://mirror.example/xray.zip", "sha256": "abc"}
    errors = {
        "url": "Give an address that begins with http:// or https://.",
        "sha256": "A SHA-256 has 64 hexadecimal digits.",
    }
    return OrderFormView(server_id=1, server_name=NAME, form=FormView(values=values, errors=errors))


def checks() -> ChecksView:
    """Checks in every status."""
    rows = (
        CheckView(name="xray", status="ok", text="26.2.6 answers", took_ms=4),
        CheckView(name="disk", status="warning", text="1.2 GB free of 20 GB", took_ms=1),
        CheckView(name="tls www.example.com:443", status="failed", text="TLS 1.2 only", took_ms=310),
    )
    form = FormView(values={"tls_targets": "www.example.com:443", "free_ports": "443"})
    return ChecksView(server_id=1, server_name=NAME, form=form, checks=rows, done=True)


def certificates(now: datetime) -> CertificatesView:
    """Certificates, one with a long name."""
    rows = tuple(
        CertificateView(
            name=name,
            domains=(name, f"www.{name}"),
            issuer="" if self_signed else "R11",
            self_signed=self_signed,
            expires_at=now + timedelta(days=80),
            certificate_path=f"/var/lib/xfleet-agent/certs/{name}/fullchain.pem",
            key_path=f"/var/lib/xfleet-agent/certs/{name}/key.pem",
        )
        for name, self_signed in (("vpn.example.com", False), (f"{LONG.lower()}.example.org", True))
    )
    return CertificatesView(server_id=1, server_name=NAME, form=FormView(values={}), certificates=rows)


def config() -> dict[str, object]:
    """A running configuration."""
    text = (
        '{\n  "inbounds": [\n    {"tag": "1234567890123", "port": 443, "settings": {"clients": "[redacted]"}}\n  ]\n}'
    )
    return {"config": ConfigView(server_id=1, server_name=NAME, text=text)}


def log_page(*, error: bool = False) -> LogPageView:
    """A log, with a hostile line."""
    lines = tuple(
        f"2026/11/22 14:05:{second:02} [Info] [{second}] proxy/vless: received request for tcp:www.example.com:443"
        for second in range(0 if error else 24)
    )
    return LogPageView(
        server_id=1,
        server_name=NAME,
        log="xray_error",
        lines_count=200,
        follow=not error,
        lines=lines if error else (*lines, "<script>alert(1)</script> " + LONG * 3),
        truncated=not error,
        size_bytes=0 if error else 7_340_032,
        error="The server is offline." if error else "",
        logs=(OptionView(value="agent", label="Agent"), OptionView(value="xray_error", label="Xray errors")),
        counts=tuple(OptionView(value=str(count), label=str(count)) for count in (100, 200)),
    )


def rollout_row(now: datetime, number: int, status: str) -> RolloutRowView:
    """One rollout."""
    return RolloutRowView(
        id=number,
        title=("Agent 0.2.0", "Xray 26.2.6", "Geo files")[number % 3],
        status=status,
        done_count=7 if status == "paused" else 12,
        failed_count=int(status == "paused"),
        total_count=12,
        created_at=now - timedelta(minutes=3 + number * 55),
        ordered_by="admin",
        error="Amsterdam: Its Xray is crashed." if status == "paused" else "",
    )


def rollouts(now: datetime, *, rows: int = 4) -> RolloutsPageView:
    """The list, possibly empty."""
    statuses = ("running", "paused", "completed", "cancelled")
    listed = tuple(rollout_row(now, number, status) for number, status in enumerate(statuses, 1))[:rows]
    return RolloutsPageView(rows=listed, paging=PagingView(page=1, page_size=25, total=len(listed)))


def rollout(now: datetime) -> RolloutDetailView:
    """A rollout that pauses, with a server in every status."""
    statuses = ("healthy", "failed", "watching", "running", "skipped", "waiting")
    errors = {"failed": "Its Xray is crashed.", "skipped": "It was offline when its turn came."}
    names = (NAME, "Amsterdam", "Helsinki", "New York", LONG, "Paris")
    members = tuple(
        RolloutServerView(
            server_id=number,
            name=name,
            status=status,
            version_before="26.1.1",
            task_id=1040 + number if status not in {"waiting", "skipped"} else None,
            error=errors.get(status, ""),
        )
        for number, (name, status) in enumerate(zip(names, statuses, strict=True), 1)
    )
    waves = tuple(
        WaveView(number=number, servers=each) for number, each in enumerate((members[:1], members[1:3], members[3:]), 1)
    )
    order = '{\n  "version": "26.2.6",\n  "archive": {"url": "https://mirror.example/xray.zip"}\n}'
    return RolloutDetailView(
        row=rollout_row(now, 1, "paused"),
        waves=waves,
        watch_s=30,
        order=order,
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    )


def rollout_form() -> RolloutFormView:
    """A rollout, refused."""
    values = {"verb": "xray.install", "version": "latest", "waves": "1, 10%, rest", "watch_s": "30"}
    options = {
        "verb": tuple(
            OptionView(value=value, label=label)
            for value, label in (("agent.update", "Agent"), ("xray.install", "Xray"), ("geofiles.update", "Geo files"))
        ),
        "server_ids": tuple(OptionView(value=str(number), label=name) for number, name in enumerate((NAME, LONG), 1)),
    }
    form = FormView(values=values, errors={"version": "Give a version such as 26.2.6, or `bundled`."}, options=options)
    return RolloutFormView(form=form, servers_count=2)
