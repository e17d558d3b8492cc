"""The archive's envelope: a stream sealed under a passphrase, in chunks, so that no cut and no change goes unnoticed.

Layout: magic line, length of the header (4 bytes), header (JSON), then chunks of AES-256-GCM. A chunk's nonce is the
file's random prefix, the chunk's number and whether it is the last one; the header is bound to every chunk.
The key comes from the passphrase by scrypt. Chunk order, end and header cannot be changed without the passphrase.
"""

import gzip
import hashlib
import hmac
import io
import os
import struct
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from xfleet_runtime.errors import Unusable

MAGIC = b"xfleet-backup\n"
VERSION = 1
CHUNK_BYTES = 256 * 1024
TAG_BYTES = 16
MAX_HEADER_BYTES = 4096
MAX_MEMORY_BYTES = 1024**3
"""What a header may make us spend on its key: it is read before anything is proven."""
MIN_PASSPHRASE = 10
COMPRESSION = 3
_LENGTH = struct.Struct(">I")
_COUNTER = struct.Struct(">IB")
_PREFIX_BYTES = 7


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What stands before the chunks, readable by everybody and changeable by nobody."""

    version: int = VERSION
    made_at: str
    salt: bytes
    nonce_prefix: bytes
    scrypt_n: int = 2**16
    scrypt_r: int = 8
    scrypt_p: int = 2
    check: bytes
    """Tells a wrong passphrase from a damaged file."""


class Keys(msgspec.Struct, frozen=True):
    """What a passphrase gives for one file."""

    key: bytes
    check: bytes


def derive(passphrase: str, salt: bytes, *, n: int, r: int, p: int) -> Keys:
    """The keys of a file, slowly on purpose."""
    out = Scrypt(salt=salt, length=64, n=n, r=r, p=p).derive(passphrase.encode())
    return Keys(out[:32], hashlib.sha256(b"xfleet-backup-check\0" + out[32:]).digest())


class SealingWriter(io.RawIOBase):
    """Takes bytes and writes sealed chunks; only `finish` makes the file whole."""

    def __init__(self, out: IO[bytes], passphrase: str, made_at: str) -> None:
        super().__init__()
        empty = Header(made_at=made_at, salt=os.urandom(16), nonce_prefix=os.urandom(_PREFIX_BYTES), check=b"")
        keys = derive(passphrase, empty.salt, n=empty.scrypt_n, r=empty.scrypt_r, p=empty.scrypt_p)
        self._header = msgspec.structs.replace(empty, check=keys.check)
        head = msgspec.json.encode(self._header)
        self._bound = hashlib.sha256(MAGIC + head).digest()
        self._cipher = AESGCM(keys.key)
        self._out = out
        self._held = bytearray()
        self._number = 0
        out.write(MAGIC + _LENGTH.pack(len(head)) + head)

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: Any) -> int:
        """Seals every chunk that is surely not the last one."""
        view = memoryview(data).cast("B")
        self._held += view
        while len(self._held) > CHUNK_BYTES:
            self._emit(bytes(self._held[:CHUNK_BYTES]), last=False)
            del self._held[:CHUNK_BYTES]
        return len(view)

    def finish(self) -> None:
        """Seals what is left as the last chunk."""
        self._emit(bytes(self._held), last=True)
        self._held.clear()

    def _emit(self, data: bytes, *, last: bool) -> None:
        nonce = self._header.nonce_prefix + _COUNTER.pack(self._number, last)
        self._out.write(self._cipher.encrypt(nonce, data, self._bound))
        self._number += 1


class OpeningReader(io.RawIOBase):
    """The bytes behind the envelope. Raises `Unusable` for a wrong passphrase, a change or a missing end."""

    def __init__(self, source: IO[bytes], passphrase: str, name: str) -> None:
        super().__init__()
        self._source = source
        self._name = name
        head = _read_head(source, name)
        self._header = _parse_header(head, name)
        held = self._header
        keys = derive(passphrase, held.salt, n=held.scrypt_n, r=held.scrypt_r, p=held.scrypt_p)
        if not hmac.compare_digest(keys.check, held.check):
            raise Unusable(f"The passphrase does not open {name}. Give the one it was made with.")
        self._bound = hashlib.sha256(MAGIC + head).digest()
        self._cipher = AESGCM(keys.key)
        self._number = 0
        self._next = source.read(CHUNK_BYTES + TAG_BYTES)
        self._plain = b""
        self._at_end = False

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, target: Any) -> int:
        """Some bytes; 0 only at the proven end."""
        while not self._plain and not self._at_end:
            self._open_next()
        count = min(len(target), len(self._plain))
        target[:count] = self._plain[:count]
        self._plain = self._plain[count:]
        return count

    def _open_next(self) -> None:
        box, self._next = self._next, self._source.read(CHUNK_BYTES + TAG_BYTES)
        last = not self._next
        plain = self._try(box, last=last)
        if plain is None:
            cut = last and (len(box) < CHUNK_BYTES + TAG_BYTES or self._try(box, last=False) is not None)
            what = "is cut off: its end is missing" if cut else f"was changed or damaged (part {self._number + 1})"
            raise Unusable(f"{self._name} {what}. Fetch it again, or use another backup.")
        self._plain, self._at_end = plain, last
        self._number += 1

    def _try(self, box: bytes, *, last: bool) -> bytes | None:
        nonce = self._header.nonce_prefix + _COUNTER.pack(self._number, last)
        try:
            return self._cipher.decrypt(nonce, box, self._bound)
        except (InvalidTag, ValueError):
            return None


def _read_head(source: IO[bytes], name: str) -> bytes:
    if source.read(len(MAGIC)) != MAGIC:
        raise Unusable(f"{name} is no backup of xfleet.")
    raw = source.read(_LENGTH.size)
    length = _LENGTH.unpack(raw)[0] if len(raw) == _LENGTH.size else 0
    head = source.read(length) if 0 < length <= MAX_HEADER_BYTES else b""
    if not head or len(head) != length:
        raise Unusable(f"{name} is cut off or damaged at its beginning. Fetch it again, or use another backup.")
    return head


def _parse_header(head: bytes, name: str) -> Header:
    try:
        version = msgspec.json.decode(head).get("version")
        if version == VERSION:
            header = msgspec.json.decode(head, type=Header)
            power_of_two = header.scrypt_n > 1 and header.scrypt_n & (header.scrypt_n - 1) == 0
            cheap = 0 < 128 * header.scrypt_n * header.scrypt_r * header.scrypt_p <= MAX_MEMORY_BYTES
            if power_of_two and cheap and header.scrypt_r > 0 and len(header.nonce_prefix) == _PREFIX_BYTES:
                return header
    except (msgspec.MsgspecError, AttributeError):
        version = None
    if isinstance(version, int) and version != VERSION:
        raise Unusable(f"{name} is of a newer release (format {version}). Restore it with that release.")
    raise Unusable(f"{name} is damaged at its beginning. Fetch it again, or use another backup.")


@contextmanager
def writing(out: IO[bytes], passphrase: str, made_at: str) -> Iterator[tarfile.TarFile]:
    """A tar whose bytes leave compressed and sealed; whole only when the block ends without an exception."""
    sealing = SealingWriter(out, passphrase, made_at)
    with (
        gzip.GzipFile(fileobj=sealing, mode="wb", compresslevel=COMPRESSION) as packed,
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):
        yield tar
    sealing.finish()


@contextmanager
def reading(source: IO[bytes], passphrase: str, name: str) -> Iterator[tarfile.TarFile]:
    """The tar inside an archive, read to its proven end when the block is left. Raises `Unusable`."""
    opening = io.BufferedReader(OpeningReader(source, passphrase, name), CHUNK_BYTES)
    try:
        with gzip.GzipFile(fileobj=opening, mode="rb") as packed:
            with tarfile.open(fileobj=packed, mode="r|") as tar:
                yield tar
            while packed.read(CHUNK_BYTES):
                pass
        while opening.read(CHUNK_BYTES):
            pass
    except (tarfile.TarError, gzip.BadGzipFile, EOFError) as error:
        raise Unusable(f"{name} cannot be unpacked: {error}. It was made by a broken program.") from error
