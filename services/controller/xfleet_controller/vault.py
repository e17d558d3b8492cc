"""Sealed columns: secrets in the database under the key file, each bound to the record it belongs to."""

from typing import Any, TypeVar

import msgspec

from xfleet_contracts.codec import canonical
from xfleet_contracts.enrollment import Sealed
from xfleet_runtime.keys.sealed import KeyFile

T = TypeVar("T")
_NONCE_BYTES = 12


class Vault:
    """Seals and opens bytes and JSON values for columns."""

    def __init__(self, key_file: KeyFile) -> None:
        self._key_file = key_file

    def seal(self, name: str, data: bytes) -> bytes:
        """The bytes sealed under this record's name."""
        sealed = self._key_file.seal(name, data)
        return sealed.nonce + sealed.box

    def open(self, name: str, column: bytes) -> bytes:
        """The bytes of a column. Raises `BoxUnreadableError` for another key or record."""
        return self._key_file.open(name, self._as_sealed(name, column))

    def open_own(self, name: str, column: bytes) -> bytes:
        """As `open`, at a command's start: a wrong key file is `Unusable`."""
        return self._key_file.open_own(name, self._as_sealed(name, column))

    def seal_value(self, name: str, value: Any) -> bytes:
        """A value as sealed JSON."""
        return self.seal(name, canonical(value))

    def open_value(self, name: str, column: bytes, kind: type[T]) -> T:
        """The value in a column."""
        return msgspec.json.decode(self.open(name, column), type=kind)

    def _as_sealed(self, name: str, column: bytes) -> Sealed:
        return Sealed(name=name, nonce=column[:_NONCE_BYTES], box=column[_NONCE_BYTES:])
