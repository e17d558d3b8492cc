"""Servers as views: what is stored and what the last heartbeat told, put together."""

from datetime import datetime
from typing import Any

import msgspec

from xfleet_contracts.apply import Degraded
from xfleet_contracts.heartbeat import Heartbeat, HostFigures
from xfleet_controller.panel.views import FormView, OptionView
from xfleet_controller.servers.addresses import is_ip
from xfleet_controller.servers.condition import REASONS, standing_of
from xfleet_controller.servers.fields import MODES
from xfleet_controller.servers.figures import Latest, latest_of, problems
from xfleet_controller.servers.models import Server
from xfleet_controller.servers.naming import Names
from xfleet_controller.servers.presence import ONLINE, Presence
from xfleet_controller.servers.rates import RateHistory
from xfleet_controller.servers.replacing import DONE, read_replaced
from xfleet_controller.servers.service import ServerView
from xfleet_controller.servers.views import (
    DegradedEntityView,
    ProblemView,
    ReplacedView,
    ServerCardView,
    ServerDetailView,
    ServerFormView,
    UsageView,
)

MODE_WORDS = {
    "active": ("Active", "Handed to everybody."),
    "drain": ("Drain", "Left out of links and subscriptions; who is connected goes on."),
    "maintenance": ("Maintenance", "As drain, and no alerts about it."),
}


def card_view(
    view: ServerView, presence: Presence, rates: RateHistory, clients_total: int, now: datetime
) -> ServerCardView:
    """The live card; without a fresh heartbeat it shows no figures at all."""
    server, revision = view.server, view.revision
    latest = latest_of(view, presence)
    found = problems(view, latest, now)
    card = ServerCardView(
        id=server.id,
        slug=server.slug,
        name=server.name,
        public_address=server.public_address or server.reported_address,
        status=view.status,
        standing=standing_of(server),
        region=server.region,
        reason=REASONS.get(view.reason, ""),
        problems=tuple(
            ProblemView(tone=each.tone, text=each.text, server_id=server.id, server_name=server.name) for each in found
        ),
        last_seen_at=latest.at if latest else server.last_seen_at,
        last_error=server.last_error,
        tags=tuple(server.tags),
        notes=server.notes,
        clients_total=clients_total,
        xray_version=server.xray_version,
        agent_version=server.agent_version,
        desired_revision=revision.desired_revision,
        applied_revision=revision.applied_revision,
    )
    if latest is None or not latest.live:
        return card
    up_spark, down_spark = rates.of(server.slug)
    return msgspec.structs.replace(with_figures(card, latest.beat), up_spark=up_spark, down_spark=down_spark)


def with_figures(card: ServerCardView, beat: Heartbeat) -> ServerCardView:
    """The card with what a beat told."""
    host = beat.host
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
        clients_online=beat.online_count,
        xray_state=beat.xray.status,
        xray_version=beat.xray.version or card.xray_version,
        agent_version=beat.agent_version or card.agent_version,
        os_name=_system(host),
        host_uptime_s=host.uptime_s or None,
        xray_uptime_s=beat.xray.uptime_s,
        applied_revision=beat.applied_revision,
        cut_count=beat.cuts_count,
    )


def detail_view(view: ServerView, card: ServerCardView, presence: Presence, names: Names) -> ServerDetailView:
    """Everything that is known; `names` says what people call entities, by kind and id."""
    server, revision, latest = view.server, view.revision, latest_of(view, presence)
    detail = ServerDetailView(
        id=server.id,
        public_address=server.public_address,
        reported_address=server.reported_address,
        notes=server.notes,
        created_at=server.created_at,
        clock_offset_ms=server.clock_offset_ms,
        credentials_expire_at=server.credentials_expire_at,
        desired_revision=revision.desired_revision,
        wanted_revision=revision.wanted_revision,
        applied_revision=revision.applied_revision,
        changed_at=revision.changed_at,
        drift_at=server.drift_at,
        degraded=tuple(_degraded_view(each, names) for each in msgspec.convert(revision.degraded, list[Degraded])),
        replaced=_replaced_view(server),
        retiring_at=server.retiring_at,
        retiring_waits_for=_retiring_words(view),
    )
    return detail if latest is None else _with_machine(detail, card, latest)


def _with_machine(detail: ServerDetailView, card: ServerCardView, latest: Latest) -> ServerDetailView:
    beat, host = latest.beat, latest.beat.host
    return msgspec.structs.replace(
        detail,
        figures_at=latest.at,
        figures_live=latest.live,
        known=None if latest.live else with_figures(card, beat),
        applied_revision=max(beat.applied_revision, detail.applied_revision),
        agent_started_at=latest.since(beat.agent_uptime_s),
        link=beat.link,
        clock_offset_ms=beat.clock_offset_ms,
        upgradable=beat.upgradable,
        free_state_bytes=beat.free_state_bytes or None,
        xray_source=beat.xray.source,
        xray_started_at=latest.since(beat.xray.uptime_s),
        xray_restarts_count=beat.xray.restarts_count,
        host_started_at=latest.since(host.uptime_s),
        kernel=host.kernel,
        hostname=host.hostname,
        connections_count=host.tcp_connections_count + host.udp_sockets_count,
        spool_batches_count=beat.spool.sealed_batches_count,
    )


def form_view(server: Server, form: FormView | None = None, theirs: dict[str, str] | None = None) -> ServerFormView:
    """The form with what is stored, or with what was typed."""
    form = form or FormView(values=stored_values(server))
    whole = FormView(values=form.values, errors=form.errors, options={"mode": mode_options()})
    return ServerFormView(id=server.id, slug=server.slug, form=whole, theirs=theirs or {})


def stored_values(server: Server) -> dict[str, str]:
    """What the form shows of a server."""
    return {name: words_of(getattr(server, name)) for name in FORM_FIELDS} | {"version": str(server.version)}


FORM_FIELDS = (
    "name", "public_address", "region", "tags", "notes", "mode", "enabled", "allow_private_destinations",
)  # fmt: skip


def words_of(value: Any) -> str:
    """A field's value as its form shows it."""
    if isinstance(value, bool):
        return "on" if value else ""
    return ", ".join(value) if isinstance(value, list) else str(value)


def mode_options() -> tuple[OptionView, ...]:
    """The modes a server can be in."""
    return tuple(OptionView(value=mode, label=MODE_WORDS[mode][0], hint=MODE_WORDS[mode][1]) for mode in MODES)


def _degraded_view(each: Degraded, names: Names) -> DegradedEntityView:
    name = names.of((each.key.kind, each.key.id)) or each.key.id
    return DegradedEntityView(
        kind=each.key.kind, name=name, path=each.path, code=each.code, reason=each.reason, kept=each.kept == "previous"
    )


def _replaced_view(server: Server) -> ReplacedView | None:
    replaced = read_replaced(server.replaced)
    if replaced is None:
        return None
    old = replaced.old_public_address or replaced.old_address
    new = server.public_address or server.reported_address
    return ReplacedView(
        done=replaced.state == DONE,
        at=replaced.at,
        old_address=old,
        new_address=new,
        moved=replaced.moved,
        hosts_count=replaced.hosts_count,
        named=bool(server.public_address) and not is_ip(server.public_address),
        hostname=replaced.hostname,
    )


def _retiring_words(view: ServerView) -> str:
    if view.server.retiring_at is None:
        return ""
    if view.status != ONLINE:
        return "It is away. Its agent takes everything down when it comes back."
    if view.revision.wanted_revision < view.revision.desired_revision:
        return "Its agent is taking everything down."
    return "Everything is down; its last bytes are being counted."


def _usage(used_bytes: int, total_bytes: int) -> UsageView | None:
    return UsageView(used_bytes=used_bytes, total_bytes=total_bytes) if total_bytes else None


def _system(host: HostFigures) -> str:
    return " · ".join(part for part in (host.os, host.arch) if part)
