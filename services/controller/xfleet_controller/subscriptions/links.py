"""Share links of clients, and the URL of a subscription."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.clients import store
from xfleet_controller.clients.models import Client
from xfleet_controller.context import Context
from xfleet_controller.servers.addresses import is_address
from xfleet_controller.servers.compile import client_body, inbound_body
from xfleet_controller.servers.fields import ACTIVE
from xfleet_controller.servers.models import Server
from xfleet_runtime.log import get_logger
from xfleet_xraykit.links import LinkImpossible, share_link

_log = get_logger(__name__)


class Link(NamedTuple):
    """One share link."""

    remark: str
    server_name: str
    inbound_id: int
    url: str


def address_of(server: Server) -> str:
    """Where clients reach a server; empty while nobody knows."""
    return next((each for each in (server.public_address, server.reported_address) if is_address(each)), "")


def is_handed_out(server: Server) -> bool:
    """Whether links and subscriptions name the server: not while it drains, rests, is disabled or on its way out."""
    return server.enabled and server.mode == ACTIVE and server.retiring_at is None


async def list_withheld(session: AsyncSession, client_id: int) -> list[str]:
    """The servers a client is on that are handed out to nobody now, by name."""
    places = await store.places_of(session, [client_id])
    return list(dict.fromkeys(place.server.name for place in places if not is_handed_out(place.server)))


async def links_of(session: AsyncSession, context: Context, clients: Sequence[Client]) -> dict[int, list[Link]]:
    """The links of each client on inbounds that are enabled, by client id."""
    by_id = {client.id: client for client in clients}
    found: dict[int, list[Link]] = {client.id: [] for client in clients}
    for place in await store.places_of(session, list(by_id)):
        client, address = by_id[place.link.client_id], address_of(place.server)
        if not place.inbound.enabled or not address or not is_handed_out(place.server):
            continue
        remark = f"{place.inbound.remark or f'{place.server.name}:{place.inbound.port}'}-{client.name}"
        body = inbound_body(place.inbound, context.vault)
        credentials = client_body(client, place.inbound.ref, place.link.credentials_sealed, context.vault)
        try:
            url = share_link(body, credentials, address=address, remark=remark)
        except LinkImpossible as refusal:
            _log.warning("no link for an inbound", inbound_id=place.inbound.id, reason=refusal.text)
            continue
        found[client.id].append(Link(remark, place.server.name, place.inbound.id, url))
    return found


def subscription_path(sub_id: str) -> str:
    """Path of a subscription below the base path."""
    return f"/sub/{sub_id}"
