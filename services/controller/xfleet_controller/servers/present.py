"""Servers as views: what is stored and what the last heartbeat told, put together."""

import msgspec

from xfleet_contracts.heartbeat import HostFigures
from xfleet_controller.panel.views import FormView
from xfleet_controller.servers.presence import ONLINE, Presence
from xfleet_controller.servers.rates import RateHistory
from xfleet_controller.servers.service import ServerView
from xfleet_controller.servers.views import ServerCardView, ServerFormView, UsageView


def card_view(view: ServerView, presence: Presence, rates: RateHistory, clients_total: int) -> ServerCardView:
    """The live card; without a fresh heartbeat it shows no figures at all."""
    server, revision, status = view
    seen = presence.get(server.slug) if status == ONLINE else None
    card = ServerCardView(
        id=server.id,
        slug=server.slug,
        name=server.name,
        public_address=server.public_address or server.reported_address,
        status=status,
        last_seen_at=server.last_seen_at,
        last_error=server.last_error,
        tags=tuple(server.tags),
        notes=server.notes,
        clients_total=clients_total,
        xray_version=server.xray_version,
        agent_version=server.agent_version,
        desired_revision=revision.desired_revision,
        applied_revision=revision.applied_revision,
    )
    if seen is None:
        return card
    beat, host = seen.beat, seen.beat.host
    up_spark, down_spark = rates.of(server.slug)
    return msgspec.structs.replace(
        card,
        cpu_percent=host.cpu_percent,
        cpu_count=host.cpu_count or None,
        load_1m=host.load_1m,
        memory=_usage(host.memory_used_bytes, host.memory_total_bytes),
        swap=UsageView(used_bytes=host.swap_used_bytes, total_bytes=host.swap_total_bytes),
        disk=_usage(host.disk_used_bytes, host.disk_total_bytes),
        up_bytes_per_s=host.network_up_bytes_s,
        down_bytes_per_s=host.network_down_bytes_s,
        up_spark=up_spark,
        down_spark=down_spark,
        clients_online=beat.online_count,
        xray_state=beat.xray.status,
        xray_version=beat.xray.version or server.xray_version,
        agent_version=beat.agent_version or server.agent_version,
        os_name=_system(host),
        host_uptime_s=host.uptime_s or None,
        xray_uptime_s=beat.xray.uptime_s,
        applied_revision=beat.applied_revision,
        cut_count=beat.cuts_count,
    )


def form_view(view: ServerView) -> ServerFormView:
    """The form with what is stored."""
    server = view.server
    values = {
        "name": server.name,
        "public_address": server.public_address,
        "tags": ", ".join(server.tags),
        "notes": server.notes,
        "allow_private_destinations": "on" if server.allow_private_destinations else "",
    }
    return ServerFormView(id=server.id, slug=server.slug, form=FormView(values=values))


def _usage(used_bytes: int, total_bytes: int) -> UsageView | None:
    return UsageView(used_bytes=used_bytes, total_bytes=total_bytes) if total_bytes else None


def _system(host: HostFigures) -> str:
    return " · ".join(part for part in (host.os, host.arch) if part)
