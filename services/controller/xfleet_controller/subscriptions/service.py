"""What a VPN app gets for a subscription: links, how much is left, when to ask again."""

import base64
from typing import NamedTuple

from xfleet_controller.clients import store
from xfleet_controller.clients.service import state_of
from xfleet_controller.clients.store import Usage
from xfleet_controller.context import Context
from xfleet_controller.errors import NotFound
from xfleet_controller.subscriptions.links import links_of

USABLE = ("active", "expiring")


class Subscription(NamedTuple):
    """The text of a subscription and its headers."""

    body: str
    headers: dict[str, str]


class UnknownSubscription(NotFound):
    """No client has this subscription id."""

    code = "subscription_unknown"
    message = "There is no such subscription."


async def make_subscription(context: Context, sub_id: str, *, plain: bool) -> Subscription:
    """The subscription of this id; without links for whoever may not connect. Raises `UnknownSubscription`."""
    async with context.database.read() as session:
        client = await store.find_by_sub_id(session, sub_id)
        if client is None:
            raise UnknownSubscription
        usage = (await store.usage_of(session, [client.ref])).get(client.ref, Usage())
        usable = state_of(client, usage, context.clock.now()) in USABLE
        links = (await links_of(session, context, [client]))[client.id] if usable else []
    text = "".join(f"{link.url}\n" for link in links)
    userinfo = [f"upload={usage.up_bytes}", f"download={usage.down_bytes}", f"total={client.total_bytes or 0}"]
    if client.expires_at is not None:
        userinfo.append(f"expire={int(client.expires_at.timestamp())}")
    title = base64.b64encode(context.settings.profile_title.encode()).decode()
    headers = {
        "subscription-userinfo": "; ".join(userinfo),
        "profile-update-interval": str(context.settings.profile_update_hours),
        "profile-title": f"base64:{title}",
        "content-disposition": f'attachment; filename="{sub_id}.txt"',
        "cache-control": "no-store",
    }
    return Subscription(text if plain else base64.b64encode(text.encode()).decode(), headers)
