"""Hashes of a server's entities, kept in memory so that a change costs what it changes, not what the server has.

An index is believed only if both its revision and its digest are what the locked revision row says; after a rollback,
or when another controller wrote, it is read again.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import cast

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.desired_state import EntityKey, Kind
from xfleet_controller.servers.models import ServerRevision, StateEntity

Name = tuple[str, str]
"""Kind and id of an entity."""
MAX_ENTITIES = 1_000_000
"""How many hashes may be kept in memory over all servers."""


class StateIndex:
    """The hashes of one server's entities; `digest` equals `desired_state.digest_of` over the bodies."""

    def __init__(self, hashes: Mapping[Name, str]) -> None:
        self._hashes = dict(hashes)
        self._names = sorted(self._hashes)

    def __len__(self) -> int:
        return len(self._names)

    @property
    def digest(self) -> str:
        """SHA-256 over the sorted lines of all entities."""
        hashes = self._hashes
        return sha256(b"".join([f"{n[0]}\0{n[1]}\0{hashes[n]}\n".encode() for n in self._names])).hexdigest()

    def find(self, name: Name) -> str | None:
        """The hash of an entity, None when there is none."""
        return self._hashes.get(name)

    def names(self) -> Iterable[Name]:
        """All entities, sorted."""
        return tuple(self._names)

    def names_of_client(self, client_ref: int) -> list[Name]:
        """The entities of a client on this server."""
        prefix = f"{client_ref}."
        found: list[Name] = []
        for at in range(bisect_left(self._names, ("client", prefix)), len(self._names)):
            kind, entity_id = self._names[at]
            if kind != "client" or not entity_id.startswith(prefix):
                break
            found.append((kind, entity_id))
        return found

    def names_of_inbound(self, inbound_ref: int) -> list[Name]:
        """The entity of an inbound and those of all clients on it."""
        suffix = f".{inbound_ref}"
        first = bisect_left(self._names, ("client", ""))
        last = bisect_left(self._names, ("client", "\x7f"))
        found = [name for name in self._names[first:last] if name[1].endswith(suffix)]
        own = ("inbound", str(inbound_ref))
        return [*found, own] if own in self._hashes else found

    def after(self, put: Mapping[Name, str], remove: Iterable[Name]) -> "StateIndex":
        """The index after a change; this one stays as it is."""
        changed = StateIndex.__new__(StateIndex)
        changed._hashes = dict(self._hashes)  # noqa: SLF001  our own class
        changed._names = list(self._names)  # noqa: SLF001
        for name in remove:
            if changed._hashes.pop(name, None) is not None:  # noqa: SLF001
                del changed._names[bisect_left(changed._names, name)]  # noqa: SLF001
        for name, digest in put.items():
            if name not in changed._hashes:  # noqa: SLF001
                insort(changed._names, name)  # noqa: SLF001
            changed._hashes[name] = digest  # noqa: SLF001
        return changed


class StateIndexes:
    """The indexes of recently changed servers, the least recent ones forgotten first."""

    def __init__(self, max_entities: int = MAX_ENTITIES) -> None:
        self._max_entities = max_entities
        self._kept: OrderedDict[int, tuple[int, str, StateIndex]] = OrderedDict()

    async def load(self, session: AsyncSession, row: ServerRevision) -> StateIndex:
        """The index at the revision of this locked row."""
        kept = self._kept.get(row.server_id)
        if kept is not None and kept[:2] == (row.desired_revision, row.desired_digest):
            self._kept.move_to_end(row.server_id)
            return kept[2]
        found = await session.execute(
            select(StateEntity.kind, StateEntity.entity_id, StateEntity.sha256).where(
                StateEntity.server_id == row.server_id, StateEntity.removed.is_(False)
            )
        )
        index = StateIndex({(kind, entity_id): digest for kind, entity_id, digest in found})
        self.keep(row, index)
        return index

    def keep(self, row: ServerRevision, index: StateIndex) -> None:
        """Remembers an index for the revision this row now names."""
        self._kept[row.server_id] = (row.desired_revision, row.desired_digest, index)
        self._kept.move_to_end(row.server_id)
        while len(self._kept) > 1 and sum(len(each[2]) for each in self._kept.values()) > self._max_entities:
            self._kept.popitem(last=False)


def key_of(name: Name) -> EntityKey:
    """The name as contracts spell it."""
    return EntityKey(kind=cast("Kind", name[0]), id=name[1])
