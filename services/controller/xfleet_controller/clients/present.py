"""Clients as views, with QR codes and with a warning where a phone could not get through."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from xfleet_controller.clients.service import ClientView
from xfleet_controller.clients.views import ClientDetailView, ClientRowView, LinkView
from xfleet_controller.panel.qr import qr_svg
from xfleet_controller.servers.addresses import is_private


def row_view(view: ClientView, inbound_titles: Mapping[int, str]) -> ClientRowView:
    """One line of the list."""
    row, usage = view.row, view.usage
    return ClientRowView(
        id=row.id,
        name=row.name,
        state=view.state,
        online=view.online,
        enabled=row.enabled,
        up_bytes=usage.up_bytes,
        down_bytes=usage.down_bytes,
        total_bytes=row.total_bytes or 0,
        expires_at=row.expires_at,
        last_online_at=usage.last_online_at,
        comment=row.comment,
        inbounds=tuple(inbound_titles.get(each, f"#{each}") for each in view.inbound_ids),
    )


def detail_view(view: ClientView, subscription_url: str, inbound_titles: Mapping[int, str]) -> ClientDetailView:
    """One client with its links; drawing the QR codes takes some 20 ms each."""
    return ClientDetailView(
        row=row_view(view, inbound_titles),
        subscription_url=subscription_url,
        subscription_qr_svg=qr_svg(subscription_url) if subscription_url else "",
        links=tuple(
            LinkView(
                remark=inbound_titles.get(link.inbound_id, link.remark),
                server_name=link.server_name,
                url=link.url,
                qr_svg=qr_svg(link.url),
            )
            for link in view.links
        ),
        created_at=view.row.created_at,
        address_warning=address_warning(view, subscription_url),
    )


def address_warning(view: ClientView, subscription_url: str) -> str:
    """Why a phone elsewhere could not use a link or the subscription; empty when nothing speaks against it."""
    warnings: list[str] = []
    for link in view.links:
        host = urlsplit(link.url).hostname or ""
        if is_private(host):
            warning = f"{link.server_name} advertises {host}, a private address: set the server's public address."
            if warning not in warnings:
                warnings.append(warning)
    host = urlsplit(subscription_url).hostname or ""
    if is_private(host):
        warnings.append(f"The subscription URL points to {host}, which only this machine or network reaches.")
    return " ".join(warnings)
