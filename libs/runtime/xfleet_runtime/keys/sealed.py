"""Secrets at rest: AES-256-GCM under one key file that lies outside the database.

Every box is bound to the name of the record it belongs to, so that boxes cannot be swapped between records.
"""

import base64
import binascii
import os
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from xfleet_contracts.enrollment import Sealed
from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import write_private

_KEY_BYTES = 32
_NONCE_BYTES = 12
_MARK = "xfleet-key-1 "


class BoxUnreadableError(Exception):
    """A box that this key did not seal under this name: another key file, another record, or changed bytes."""


class KeyFile:
    """The 32-byte key under which a fleet's online secrets are sealed; `repr` never shows it."""

    def __init__(self, key: bytes, path: Path | None = None) -> None:
        self.path = path
        self._key = key
        self._cipher = AESGCM(key)

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """The key of this file, which is made with mode 0600 when missing. Raises `Unusable` when it is broken."""
        try:
            return cls.load(path)
        except FileNotFoundError:
            key = os.urandom(_KEY_BYTES)
        try:
            write_private(path, f"{_MARK}{base64.urlsafe_b64encode(key).decode()}\n".encode())
        except OSError as error:
            raise Unusable(
                f"Cannot write the key file {path}: {error.strerror}. Fix the rights of its place."
            ) from error
        return cls(key, path)

    @classmethod
    def load_existing(cls, path: Path) -> Self:
        """The key of a file that must be there, because something was sealed with it. Raises `Unusable` otherwise."""
        try:
            return cls.load(path)
        except FileNotFoundError as error:
            raise Unusable(
                f"The key file {path} is missing, and secrets were sealed with it. Restore it from a backup."
            ) from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """The key of this file; `FileNotFoundError` when there is none, `Unusable` when it is broken or too open."""
        try:
            text = path.read_text(encoding="ascii")
            mode = path.stat().st_mode & 0o777
        except FileNotFoundError:
            raise
        except UnicodeDecodeError as error:
            raise Unusable(f"The key file {path} is broken: it is not text. Restore it from a backup.") from error
        except OSError as error:
            raise Unusable(f"Cannot read the key file {path}: {error.strerror}. Fix its rights.") from error
        if mode & 0o077:
            raise Unusable(f"The key file {path} can be read by others (mode {mode:o}). Run: chmod 600 {path}")
        try:
            marked, encoded = text.startswith(_MARK), text.removeprefix(_MARK).strip()
            key = base64.b64decode(encoded, altchars=b"-_", validate=True)
        except binascii.Error:
            marked, key = False, b""
        if not marked or len(key) != _KEY_BYTES:
            raise Unusable(f"The key file {path} is broken: it does not hold a 32-byte key. Restore it from a backup.")
        return cls(key, path)

    def seal(self, name: str, data: bytes) -> Sealed:
        """The bytes in a box that opens only with this key and under this name."""
        nonce = os.urandom(_NONCE_BYTES)
        return Sealed(name=name, nonce=nonce, box=self._cipher.encrypt(nonce, data, name.encode()))

    def open(self, name: str, sealed: Sealed) -> bytes:
        """The bytes of a box; `BoxUnreadableError` when key, name or bytes are not those it was sealed with."""
        try:
            return self._cipher.decrypt(sealed.nonce, sealed.box, name.encode())
        except (InvalidTag, ValueError) as cause:
            where = f" with the key file {self.path}" if self.path else ""
            raise BoxUnreadableError(f"{name} cannot be opened{where}: it was sealed with another key") from cause

    def open_own(self, name: str, sealed: Sealed) -> bytes:
        """Like `open`, but at a command's start: a wrong key is `Unusable` with what to do."""
        try:
            return self.open(name, sealed)
        except BoxUnreadableError as error:
            raise Unusable(f"{error}. Use the key file that belongs to this data.") from error

    def __repr__(self) -> str:
        return f"KeyFile({self.path})"
