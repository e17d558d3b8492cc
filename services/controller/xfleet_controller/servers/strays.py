"""Strays: entities that an agent holds and a restored database has never heard of.

They go on running until somebody decides: whoever was sold access after the backup keeps it, and their bytes are
counted. They are part of the server's desired state, so that nothing wipes them by the way. Adopting makes them rows
under the same refs, keys and credentials; discarding takes them off the server. What the database itself removed, or
a client it knows as disabled or cut, is no stray and does not run.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.desired_state import BODY_OF, ClientBody, EntityKey, InboundBody
from xfleet_controller.clients.models import Client, Tombstone
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.servers.index import Name
from xfleet_controller.servers.models import StateEntity, StrayEntity
from xfleet_controller.sql import batches, insert_into
from xfleet_controller.vault import Vault

MAX_STRAYS = 20_000
"""More than any server has; an agent that claims more is broken or lies."""
MAX_STRAYS_BYTES = 32 * 1024 * 1024
"""All bodies of a server's strays together."""
MAX_BODY_BYTES = 100_000
MAX_LISTEN = 200
MAX_MOMENT_MS = 253_402_300_800_000
"""The end of the year 9999."""


class Strays(NamedTuple):
    """The strays of one server."""

    inbounds: dict[int, InboundBody]
    clients: dict[tuple[int, int], ClientBody]
    """By client and inbound ref."""

    @property
    def names(self) -> list[Name]:
        """As entities, inbounds first."""
        inbounds: list[Name] = [("inbound", str(ref)) for ref in sorted(self.inbounds)]
        return [*inbounds, *(("client", f"{client}.{inbound}") for client, inbound in sorted(self.clients))]


def stray_record(server_id: int, name: Name) -> str:
    """Name under which a stray's body is sealed."""
    return f"stray:{server_id}:{name[0]}:{name[1]}"


async def keep_strays(
    session: AsyncSession, vault: Vault, server_id: int, held: Mapping[EntityKey, bytes], now: datetime
) -> list[Name]:
    """Keeps those of the agent's entities that this database never knew; their names."""
    found = {(key.kind, key.id): body for key, body in held.items() if _is_sound(key, body)}
    known = await session.execute(
        select(StateEntity.kind, StateEntity.entity_id).where(StateEntity.server_id == server_id)
    )
    for kind, entity_id in known:
        found.pop((kind, entity_id), None)
    inbounds = {int(key) for kind, key in found if kind == "inbound"}
    clients = {int(key.partition(".")[0]) for kind, key in found if kind == "client"}
    foreign = await _taken_inbounds(session, inbounds)
    buried = {ref for kind, ref in await _buried(session, inbounds, clients) if kind == "client"}
    sizes = {
        name: len(found[name])
        for name in sorted(found, reverse=True)
        if not _is_out(name, foreign=foreign, buried=buried)
    }
    names = await _within_bounds(session, server_id, sizes)
    for part in batches(names):
        values = [
            {
                "server_id": server_id,
                "kind": name[0],
                "entity_id": name[1],
                "body_sealed": vault.seal(stray_record(server_id, name), found[name]),
                "found_at": now,
            }
            for name in part
        ]
        statement = insert_into(session, StrayEntity)
        await session.execute(
            statement.on_conflict_do_update(
                index_elements=["server_id", "kind", "entity_id"], set_={"body_sealed": statement.excluded.body_sealed}
            ),
            values,
        )
    return names


async def _within_bounds(session: AsyncSession, server_id: int, sizes: Mapping[Name, int]) -> list[Name]:
    """As many of these as fit beside the strays that the server has already."""
    rows = await session.execute(
        select(StrayEntity.kind, StrayEntity.entity_id, func.length(StrayEntity.body_sealed)).where(
            StrayEntity.server_id == server_id
        )
    )
    stored: dict[Name, int] = {(kind, entity_id): size for kind, entity_id, size in rows}
    room_count, room_bytes = MAX_STRAYS - len(stored), MAX_STRAYS_BYTES - sum(stored.values())
    names: list[Name] = []
    for name, size in sizes.items():
        room_count -= name not in stored
        room_bytes -= size - stored.get(name, 0)
        if room_count < 0 or room_bytes < 0:
            break
        names.append(name)
    return names


async def running_strays(
    session: AsyncSession, vault: Vault, server_ids: Sequence[int]
) -> dict[int, dict[Name, bytes]]:
    """The strays that go on running, as they were received, by server."""
    found: dict[int, dict[Name, bytes]] = {}
    rows = (await session.scalars(select(StrayEntity).where(StrayEntity.server_id.in_(server_ids)))).all()
    if not rows:
        return found
    barred = await _barred_clients(session, {int(each.entity_id.partition(".")[0]) for each in rows})
    for each in rows:
        name = (each.kind, each.entity_id)
        if each.kind == "client" and int(each.entity_id.partition(".")[0]) in barred:
            continue
        found.setdefault(each.server_id, {})[name] = vault.open(stray_record(each.server_id, name), each.body_sealed)
    served = await _served_inbounds(session, found)
    return {
        server_id: {
            name: body
            for name, body in bodies.items()
            if name[0] == "inbound"
            or ("inbound", name[1].partition(".")[2]) in bodies
            or (server_id, name[1].partition(".")[2]) in served
        }
        for server_id, bodies in found.items()
    }


async def load_strays(session: AsyncSession, vault: Vault, server_id: int) -> Strays:
    """The strays of a server, decoded."""
    strays = Strays({}, {})
    for row in await session.scalars(select(StrayEntity).where(StrayEntity.server_id == server_id)):
        body = vault.open(stray_record(server_id, (row.kind, row.entity_id)), row.body_sealed)
        if row.kind == "inbound":
            inbound = msgspec.json.decode(body, type=InboundBody)
            strays.inbounds[inbound.ref] = inbound
        else:
            client = msgspec.json.decode(body, type=ClientBody)
            strays.clients[client.client, client.inbound] = client
    return strays


async def forget_strays(session: AsyncSession, server_id: int, names: Iterable[Name]) -> None:
    """They are rows now, or gone."""
    for kind, entity_id in names:
        await session.execute(
            delete(StrayEntity).where(
                StrayEntity.server_id == server_id, StrayEntity.kind == kind, StrayEntity.entity_id == entity_id
            )
        )


async def forget_client(session: AsyncSession, ref: int) -> None:
    """A deleted client is a stray nowhere."""
    of_client = StrayEntity.entity_id.startswith(f"{ref}.")
    await session.execute(delete(StrayEntity).where(StrayEntity.kind == "client", of_client))


async def buried_clients(session: AsyncSession, refs: Iterable[int]) -> set[int]:
    """Those of these clients that were deleted."""
    return {ref for _, ref in await _buried(session, set(), set(refs))}


async def stray_client_refs(session: AsyncSession) -> set[int]:
    """Refs of clients that are only known as strays, on any server."""
    ids = await session.scalars(select(StrayEntity.entity_id).where(StrayEntity.kind == "client"))
    return {int(each.partition(".")[0]) for each in ids}


async def stray_inbound_servers(session: AsyncSession, refs: Iterable[int]) -> dict[int, int]:
    """The server of each of these inbounds that is a stray."""
    rows = await session.execute(
        select(StrayEntity.entity_id, StrayEntity.server_id).where(
            StrayEntity.kind == "inbound", StrayEntity.entity_id.in_([str(ref) for ref in refs])
        )
    )
    return {int(ref): server_id for ref, server_id in rows}


def _is_sound(key: EntityKey, body: bytes) -> bool:
    """Whether it is an inbound or a client whose body says the same refs as its id: agents may tell anything."""
    if key.kind not in ("inbound", "client") or len(body) > MAX_BODY_BYTES:
        return False
    try:
        decoded = msgspec.json.decode(body, type=BODY_OF[key.kind])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    if isinstance(decoded, InboundBody):
        return key.id == str(decoded.ref) and len(decoded.listen) <= MAX_LISTEN
    if not isinstance(decoded, ClientBody) or not 0 <= (decoded.expires_at_ms or 0) < MAX_MOMENT_MS:
        return False
    return key.id == f"{decoded.client}.{decoded.inbound}"


def _is_out(name: Name, *, foreign: set[int], buried: set[int]) -> bool:
    kind, entity_id = name
    if kind == "inbound":
        return int(entity_id) in foreign
    client, _, inbound = entity_id.partition(".")
    return int(inbound) in foreign or int(client) in buried


async def _taken_inbounds(session: AsyncSession, refs: set[int]) -> set[int]:
    """Those of these refs that are an inbound's already, on whichever server, or were one's."""
    taken = {ref for kind, ref in await _buried(session, refs, set()) if kind == "inbound"}
    for part in batches(sorted(refs)):
        taken.update((await session.scalars(select(Inbound.ref).where(Inbound.ref.in_(part)))).all())
    return taken


async def _buried(session: AsyncSession, inbounds: set[int], clients: set[int]) -> set[tuple[str, int]]:
    found: set[tuple[str, int]] = set()
    for kind, refs in (("inbound", inbounds), ("client", clients)):
        for part in batches(sorted(refs)):
            keys = [str(ref) for ref in part]
            query = select(Tombstone.key).where(Tombstone.kind == kind, Tombstone.key.in_(keys))
            found.update((kind, int(key)) for key in await session.scalars(query))
    return found


async def _barred_clients(session: AsyncSession, refs: set[int]) -> set[int]:
    """Those of these clients whom the database knows and does not let in, or has deleted."""
    barred = await buried_clients(session, refs)
    for part in batches(sorted(refs)):
        query = select(Client.ref).where(
            Client.ref.in_(part), Client.enabled.is_(False) | Client.cut_reason.is_not(None)
        )
        barred.update((await session.scalars(query)).all())
    return barred


async def _served_inbounds(session: AsyncSession, found: Mapping[int, Mapping[Name, bytes]]) -> set[tuple[int, str]]:
    """Inbounds of the database on which strays are: by server, those that are not switched off."""
    refs = {int(name[1].partition(".")[2]) for names in found.values() for name in names if name[0] == "client"}
    served: set[tuple[int, str]] = set()
    for part in batches(sorted(refs)):
        query = select(Inbound.server_id, Inbound.ref).where(Inbound.ref.in_(part), Inbound.enabled.is_(True))
        served.update((server_id, str(ref)) for server_id, ref in await session.execute(query))
    return served
