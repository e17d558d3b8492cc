"""Orders as views."""

from datetime import UTC, datetime

from xfleet_contracts.care import CertificateInfo, CheckResult
from xfleet_controller.auth.rights import Actor, may
from xfleet_controller.context import Context
from xfleet_controller.orders.views import CertificateView, CheckView, OrdersPanelView
from xfleet_controller.servers.models import Server
from xfleet_controller.tasks.present import latest_tasks
from xfleet_controller.texts import cleaned

MAX_TEXT = 500
MAX_ROWS = 200
LATEST_MS = 253_402_300_799_000
"""The last second of the year 9999."""


async def panel_view(context: Context, actor: Actor, server: Server) -> OrdersPanelView:
    """What this admin may order from a server, and what was ordered last; for `orders/_panel.html`."""
    presence = context.presence
    online, seen = presence.is_online(server.slug), presence.get(server.slug)
    return OrdersPanelView(
        server_id=server.id,
        server_name=server.name,
        online=online,
        xray_state=seen.beat.xray.status if online and seen is not None else "unknown",
        may_read=may(actor, "servers.order.read"),
        may_write=may(actor, "servers.order.write"),
        may_install=may(actor, "servers.order.heavy"),
        may_read_logs=may(actor, "logs.read"),
        tasks=await latest_tasks(context, actor, server_id=server.id) if may(actor, "tasks.read") else (),
    )


def check_view(check: CheckResult) -> CheckView:
    """One check as a server told it."""
    return CheckView(
        name=cleaned(check.name, MAX_TEXT),
        status=check.status,
        text=cleaned(check.text, MAX_TEXT),
        took_ms=check.took_ms,
    )


def certificate_view(info: CertificateInfo) -> CertificateView:
    """One certificate as a server told it."""
    known = 0 < info.not_after_ms <= LATEST_MS
    return CertificateView(
        name=cleaned(info.name, MAX_TEXT),
        domains=tuple(cleaned(domain, MAX_TEXT) for domain in info.domains[:MAX_ROWS]),
        issuer=cleaned(info.issuer, MAX_TEXT),
        self_signed=info.self_signed,
        expires_at=datetime.fromtimestamp(info.not_after_ms / 1000, UTC) if known else None,
        certificate_path=cleaned(info.certificate_path, MAX_TEXT),
        key_path=cleaned(info.key_path, MAX_TEXT),
    )
