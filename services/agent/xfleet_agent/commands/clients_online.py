"""`clients.online`: who has an open stream."""

import msgspec

from xfleet_agent.desk import Verb
from xfleet_agent.heartbeat import online_clients
from xfleet_agent.parts import Parts
from xfleet_contracts.commands import OnlineClients

NAME = "clients.online"


def verb(parts: Parts) -> Verb:
    """How it is carried out."""

    async def handle(_body: msgspec.Raw) -> OnlineClients:
        return OnlineClients(clients=tuple(sorted(await online_clients(parts))))

    return Verb(handler=handle)
