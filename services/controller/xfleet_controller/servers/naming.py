"""Entities of desired state as people know them: an inbound's remark and port, a client's name."""

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.clients.models import Client, Tombstone
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.servers.index import Name
from xfleet_controller.sql import batches

SETTINGS = "Xray's settings"


class Names:
    """What refs were and are called; made by `load_names`."""

    def __init__(self, inbounds: dict[str, str], clients: dict[str, str]) -> None:
        self._inbounds = inbounds
        self._clients = clients

    def of(self, name: Name) -> str:
        """The entity in words; empty when nobody knows it."""
        kind, entity_id = name
        if kind == "inbound":
            return self._inbounds.get(entity_id, "")
        if kind == "client":
            client, _, inbound = entity_id.partition(".")
            place = self._inbounds.get(inbound, "")
            known = self._clients.get(client, "")
            return f"{known} on {place}" if known and place else known
        return SETTINGS if kind == "settings" else entity_id


async def load_names(session: AsyncSession, entities: Iterable[Name]) -> Names:
    """The names of these entities, deleted ones too."""
    inbound_refs: set[str] = set()
    client_refs: set[str] = set()
    for kind, entity_id in entities:
        client, _, inbound = entity_id.partition(".")
        if kind == "inbound":
            inbound_refs.add(entity_id)
        elif kind == "client":
            client_refs.add(client)
            inbound_refs.add(inbound)
    inbounds = await _buried(session, "inbound", inbound_refs)
    for refs in batches(_numbers(inbound_refs)):
        rows = await session.execute(select(Inbound.ref, Inbound.remark, Inbound.port).where(Inbound.ref.in_(refs)))
        inbounds |= {str(ref): f"{remark} (port {port})" if remark else f"port {port}" for ref, remark, port in rows}
    clients = await _buried(session, "client", client_refs)
    for refs in batches(_numbers(client_refs)):
        rows = await session.execute(select(Client.ref, Client.name).where(Client.ref.in_(refs)))
        clients |= {str(ref): name for ref, name in rows}
    return Names(inbounds, clients)


async def _buried(session: AsyncSession, kind: str, refs: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for keys in batches(sorted(refs)):
        query = select(Tombstone.key, Tombstone.name).where(Tombstone.kind == kind, Tombstone.key.in_(keys))
        found |= dict((await session.execute(query)).all())
    return found


def _numbers(refs: Iterable[str]) -> list[int]:
    """Refs as numbers: an agent may have told us anything."""
    return sorted(int(ref) for ref in refs if ref.isascii() and ref.isdigit() and len(ref) <= len(str(2**52)))
