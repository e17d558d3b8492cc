"""The digest of a large state, kept up to date by what changes instead of being taken anew over every entity."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Self

from xfleet_contracts.desired_state import EntityKey


class DigestIndex:
    """The entities' own hashes in their order; equals `desired_state.digest_of`, which the tests hold it to."""

    def __init__(self, entities: Mapping[EntityKey, bytes]) -> None:
        self._order = sorted(entities)
        self._hashes = {key: sha256(body).digest() for key, body in entities.items()}

    def changed(self, put: Mapping[EntityKey, bytes], remove: Iterable[EntityKey]) -> Self:
        """The index after a difference; this one stays as it is."""
        new = self.__class__({})
        new._order, new._hashes = list(self._order), dict(self._hashes)  # noqa: SLF001  our own kind
        for key in remove:
            if new._hashes.pop(key, None) is not None and key not in put:  # noqa: SLF001  as above
                del new._order[bisect_left(new._order, key)]  # noqa: SLF001  as above
        for key, body in put.items():
            if key not in self._hashes:
                insort(new._order, key)  # noqa: SLF001  as above
            new._hashes[key] = sha256(body).digest()  # noqa: SLF001  as above
        return new

    def hexdigest(self) -> str:
        """SHA-256 over the sorted lines of all entities."""
        total = sha256()
        hashes = self._hashes
        for key in self._order:
            total.update(f"{key.kind}\0{key.id}\0{hashes[key].hex()}\n".encode())
        return total.hexdigest()
