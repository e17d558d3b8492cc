"""Backup: an archive of what only this machine has, and its way back. No identity, no key of the fleet.

`certs/<name>/{cert,key}.pem` and `geo/<name>.dat` come back by `restore`; `settings.json` and `state/*.json` are there
to be read by people: desired state stays the controller's.
"""

import io
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import msgspec

from xfleet_agent.certificates import CERTIFICATE, KEY, MAX_FILE_BYTES, NAME, check_pair
from xfleet_agent.setups import GEO_FILE
from xfleet_agent.state import Entities
from xfleet_contracts.care import ArchiveRefused

MAX_MEMBERS = 2000
MAX_UNPACKED_BYTES = 256 * 1024 * 1024
CHUNK_BYTES = 256 * 1024
COMPRESSION = 1
_CERTS, _GEO, _STATE, _SETTINGS = "certs", "geo", "state", "settings.json"
_UNREADABLE = (tarfile.TarError, zlib.error, EOFError, OSError, UnicodeError, ValueError)


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What goes into an archive."""

    certificates: Mapping[str, Path]
    """`<name>/cert.pem` and `<name>/key.pem` to file."""
    geo_files: Mapping[str, Path]
    settings: Mapping[str, Any]
    states: Mapping[str, Entities]


def write_archive(contents: Contents, target: Path) -> None:
    """Writes the archive, readable by the agent alone."""
    with target.open("xb") as file:
        target.chmod(0o600)
        with tarfile.open(fileobj=file, mode="w:gz", compresslevel=COMPRESSION, dereference=True) as archive:
            for name, path in contents.certificates.items():
                archive.add(path, f"{_CERTS}/{name}", recursive=False)
            for name, path in contents.geo_files.items():
                archive.add(path, f"{_GEO}/{name}", recursive=False)
            _add(archive, _SETTINGS, contents.settings)
            for name, entities in contents.states.items():
                _add(archive, f"{_STATE}/{name}.json", _readable(entities))


def _readable(entities: Entities) -> list[dict[str, Any]]:
    return [{"kind": key.kind, "id": key.id, "body": msgspec.Raw(body)} for key, body in sorted(entities.items())]


def _add(archive: tarfile.TarFile, name: str, value: Any) -> None:
    data = msgspec.json.format(msgspec.json.encode(value), indent=2)
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o600
    archive.addfile(info, io.BytesIO(data))


class Restorable(msgspec.Struct, kw_only=True):
    """What an archive brings back."""

    certificates: dict[str, tuple[bytes, bytes]]
    """Name to certificate and key."""
    geo_files: dict[str, Path]


def read_archive(file: Path, directory: Path) -> Restorable:
    """Checks the whole archive before anything is put in place; geo files are unpacked into `directory`.

    Raises `ArchiveRefused` for anything that no backup holds: links, devices, other paths, too much.
    """
    pems: dict[str, bytes] = {}
    geo_files: dict[str, Path] = {}
    left_bytes = MAX_UNPACKED_BYTES
    try:
        with tarfile.open(file, mode="r:gz") as archive:
            for number, member in enumerate(archive):
                left_bytes -= member.size
                if number >= MAX_MEMBERS or left_bytes < 0:
                    raise ArchiveRefused("The archive holds too much.")
                source = archive.extractfile(member) if member.isreg() else None
                if source is None:
                    raise ArchiveRefused(f"{member.name[:100]!r} in the archive is not a plain file.")
                _take(member, source, directory, pems, geo_files)
    except _UNREADABLE as error:
        raise ArchiveRefused(f"The archive cannot be read: {error}.") from error
    return Restorable(certificates=_pairs(pems), geo_files=geo_files)


def _take(
    member: tarfile.TarInfo, source: IO[bytes], directory: Path, pems: dict[str, bytes], geo_files: dict[str, Path]
) -> None:
    match member.name.split("/"):
        case [kind, name, part] if kind == _CERTS and NAME.fullmatch(name) and part in {CERTIFICATE, KEY}:
            if member.size > MAX_FILE_BYTES:
                raise ArchiveRefused(f"{member.name[:100]!r} is too large for a certificate.")
            pems[f"{name}/{part}"] = source.read(MAX_FILE_BYTES)
        case [kind, name] if kind == _GEO and GEO_FILE.fullmatch(name):
            geo_files[name] = directory / name
            with geo_files[name].open("xb") as target:
                while chunk := source.read(CHUNK_BYTES):
                    target.write(chunk)
        case [kind, name] if kind == _STATE and name.endswith(".json"):
            pass
        case [name] if name == _SETTINGS:
            pass
        case _:
            raise ArchiveRefused(f"{member.name[:100]!r} does not belong into a backup.")


def _pairs(pems: Mapping[str, bytes]) -> dict[str, tuple[bytes, bytes]]:
    pairs: dict[str, tuple[bytes, bytes]] = {}
    for name in sorted({key.partition("/")[0] for key in pems}):
        certificate, key = pems.get(f"{name}/{CERTIFICATE}"), pems.get(f"{name}/{KEY}")
        if certificate is None:
            raise ArchiveRefused(f"The archive holds a key without the certificate {name}.", name=name)
        if key is None:
            continue
        check_pair(name, certificate, key)
        pairs[name] = (certificate, key)
    return pairs
