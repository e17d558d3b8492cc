"""How a machine joins, in the words of the panel's dialogs: is the broker in reach, and which line to paste."""

from typing import NamedTuple

from xfleet_controller.auth.rights import Actor
from xfleet_controller.context import Context
from xfleet_controller.joining import service as joining
from xfleet_controller.joining.service import BrokerAddresses, Dial

LIFETIME_S = int(joining.TOKEN_LIFETIME.total_seconds())


class Reach(NamedTuple):
    """Whether machines elsewhere have a way to the broker."""

    addresses: BrokerAddresses
    dials: tuple[Dial, ...] = ()
    """What came of trying; empty while nobody tried."""

    @property
    def usable(self) -> bool:
        """Whether somebody said where the broker is, or it needs no saying."""
        return bool(self.addresses.public_urls) or self.addresses.listens == "elsewhere"

    @property
    def reachable(self) -> bool:
        """Whether one of the addresses answered."""
        return any(dial.ok for dial in self.dials)

    @property
    def proposal(self) -> str:
        """What the form begins with."""
        return " ".join(self.addresses.public_urls) or self.addresses.suggested_url

    @property
    def listens_here(self) -> bool:
        """Whether the broker's listener is still to be opened to other machines."""
        return self.addresses.listens == "loopback"


async def find_reach(context: Context, actor: Actor) -> Reach:
    """What is known about the broker's addresses."""
    return Reach(await joining.broker_addresses(context, actor))


async def set_addresses(context: Context, actor: Actor, urls: list[str]) -> Reach:
    """Says where machines elsewhere find the broker, lets it listen there, and dials it."""
    addresses = await joining.set_broker_addresses(context, actor, urls)
    return Reach(addresses, (await joining.reachability(context, actor)).dials)
