"""Unpack: takes out of a release archive what is wanted from it, and believes nothing it says about itself."""

import stat
import zipfile
import zlib
from pathlib import Path
from typing import IO

from xfleet_agent.setups import GEO_FILE, PROGRAM
from xfleet_contracts.installs import InstallRefused

MAX_MEMBERS = 64
MAX_MEMBER_BYTES = 160 * 1024 * 1024
CHUNK_BYTES = 256 * 1024
_UNREADABLE = (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, UnicodeDecodeError)
"""What zipfile raises for damaged, encrypted and exotic archives."""


def unpack_release(archive: Path, directory: Path) -> tuple[str, ...]:
    """Puts `xray` and the geo files into the directory; the names of the geo files.

    Raises `InstallRefused` for an archive that is no release, or that tries to write elsewhere or too much.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            wanted = _wanted(opened)
            for info in wanted:
                with opened.open(info) as source, (directory / info.filename).open("xb") as target:
                    _copy(source, target, info)
    except _UNREADABLE as error:
        raise InstallRefused(f"The archive cannot be read: {error}.") from error
    return tuple(info.filename for info in wanted if info.filename != PROGRAM)


def _wanted(opened: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    members = opened.infolist()
    if len(members) > MAX_MEMBERS:
        raise InstallRefused(f"The archive holds {len(members)} files; a release has a handful.")
    names = [info.filename for info in members]
    for name in names:
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or ":" in name:
            raise InstallRefused(f"The archive wants to write outside its directory: {name[:80]!r}.")
    wanted = [info for info in members if info.filename == PROGRAM or GEO_FILE.fullmatch(info.filename)]
    if names.count(PROGRAM) != 1 or len({info.filename for info in wanted}) != len(wanted):
        raise InstallRefused("The archive is no release of Xray: it does not hold exactly one `xray`.")
    for info in wanted:
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
            raise InstallRefused(f"{info.filename} in the archive is not a plain file.")
        if info.file_size > MAX_MEMBER_BYTES:
            raise InstallRefused(f"{info.filename} in the archive is larger than {MAX_MEMBER_BYTES} bytes.")
    return wanted


def _copy(source: IO[bytes], target: IO[bytes], info: zipfile.ZipInfo) -> None:
    left_bytes = MAX_MEMBER_BYTES
    while chunk := source.read(CHUNK_BYTES):
        left_bytes -= len(chunk)
        if left_bytes < 0:
            raise InstallRefused(f"{info.filename} in the archive is larger than it says.")
        target.write(chunk)
