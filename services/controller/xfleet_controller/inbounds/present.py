"""Inbounds as views."""

from collections.abc import Mapping

import msgspec

from xfleet_contracts.apply import Degraded
from xfleet_controller.inbounds.service import InboundView
from xfleet_controller.inbounds.views import InboundRowView
from xfleet_controller.servers.presence import ONLINE
from xfleet_controller.servers.service import ServerView


def row_view(view: InboundView, servers: Mapping[int, ServerView], online: Mapping[int, int]) -> InboundRowView:
    """One line of the list; `online` counts clients by inbound id."""
    row, server = view.row, servers.get(view.row.server_id)
    status, reason = status_of(view, server)
    return InboundRowView(
        id=row.id,
        remark=row.remark,
        server_id=row.server_id,
        server_name=server.server.name if server else "",
        listen=row.listen,
        port=row.port,
        protocol=row.protocol,
        network=row.network,
        security=row.security,
        enabled=row.enabled,
        status=status,
        status_reason=reason,
        clients_total=view.clients_count,
        clients_online=online.get(row.id, 0),
        up_bytes=view.totals.up_bytes,
        down_bytes=view.totals.down_bytes,
    )


def status_of(view: InboundView, server: ServerView | None) -> tuple[str, str]:
    """Whether the inbound is what its server runs now, and why not."""
    if not view.row.enabled:
        return "disabled", ""
    if server is not None and not server.server.enabled:
        return "disabled", "Its server is disabled."
    if server is None or server.status != ONLINE:
        return "offline", ""
    for each in msgspec.convert(server.revision.degraded, list[Degraded]):
        if each.key.kind == "inbound" and each.key.id == str(view.row.ref):
            return "degraded", each.reason
    behind = server.revision.wanted_revision < server.revision.desired_revision
    return ("pending", "") if behind else ("live", "")
