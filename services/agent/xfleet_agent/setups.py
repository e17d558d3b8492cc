"""Setups: which Xray program runs with which geo files, and the versions that are kept for going back.

`xray/<version>+<sha256>/xray` are programs installed over the bus, `geo/<id>/` complete sets of geo files. Neither is
ever changed once it has its name, so an install that is torn leaves what was in use as it was. Which of them are in use
is noted in the same transaction as the Xray that runs them.
"""

import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from xfleet_contracts.installs import BUNDLED
from xfleet_runtime.files import private_directory, sync_directory
from xfleet_xraykit.launcher import BinaryLauncher, Launcher

KEPT_VERSIONS = 3
PROGRAM = "xray"
VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,40}")
GEO_FILE = re.compile(r"[A-Za-z0-9_-]{1,60}\.dat")
_SHA_DIGITS = 12
_MARK = "+"
Bundled = Callable[[Path | None], Launcher]


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What Xray is started from."""

    source: str = BUNDLED
    """`bundled`, or the directory of an installed version."""
    geo: str = ""
    """Directory of its geo files; empty: those that come with the program, if any."""

    @property
    def version(self) -> str:
        """The source as it is shown."""
        return self.source.partition(_MARK)[0]


class Setups:
    """The directories of programs and geo files."""

    def __init__(self, state_dir: Path, bundled: Bundled, *, bundled_geo: Path | None = None) -> None:
        """`bundled_geo` is where the bundled program finds geo files of its own."""
        self._programs = state_dir / "xray"
        self._geo = state_dir / "geo"
        self._incoming = state_dir / "incoming"
        self._bundled = bundled
        self._bundled_geo = bundled_geo

    def clear_incoming(self) -> None:
        """Throws away what an interrupted order left."""
        shutil.rmtree(self._incoming, ignore_errors=True)
        for directory in (self._programs, self._geo):
            for partial in directory.glob(".*"):
                shutil.rmtree(partial, ignore_errors=True)

    def incoming(self) -> Path:
        """A name for a file on its way, on the file system of the state."""
        return private_directory(self._incoming) / secrets.token_hex(8)

    # Programs

    def launcher(self, setup: Setup) -> Launcher | None:
        """What starts this setup; None when its program is gone."""
        assets = self.geo_path(setup)
        if setup.source == BUNDLED:
            return self._bundled(assets)
        program = self._programs / setup.source / PROGRAM
        return BinaryLauncher(program, assets=assets) if os.access(program, os.X_OK) else None

    def sources(self) -> list[str]:
        """Every installed version, the one used last first."""
        found = [each for each in _entries(self._programs) if os.access(each / PROGRAM, os.X_OK)]
        return [each.name for each in sorted(found, key=lambda each: each.stat().st_mtime, reverse=True)]

    def versions(self) -> tuple[str, ...]:
        """What may be switched to, as people know it."""
        return (BUNDLED, *dict.fromkeys(source.partition(_MARK)[0] for source in self.sources()))

    def find_source(self, version: str, sha256: str = "") -> str | None:
        """The installed program of this version, and of this archive when one is named."""
        if version == BUNDLED:
            return BUNDLED
        wanted = source_name(version, sha256) if sha256 else ""
        for source in self.sources():
            if source == wanted or (not wanted and source.partition(_MARK)[0] == version):
                return source
        return None

    def new_program(self) -> Path:
        """A directory to unpack into; `keep_program` gives it its name."""
        return private_directory(self._programs / f".{secrets.token_hex(8)}")

    def keep_program(self, unpacked: Path, source: str) -> None:
        """Makes an unpacked program an installed one, durably and at once."""
        program = unpacked / PROGRAM
        program.chmod(0o700)
        _sync(program)
        sync_directory(unpacked)
        unpacked.rename(self._programs / source)
        sync_directory(self._programs)

    def use(self, setup: Setup) -> None:
        """Notes that it was used now."""
        if setup.source != BUNDLED:
            os.utime(self._programs / setup.source)

    def prune(self, *in_use: Setup) -> None:
        """Drops programs beyond the last few, and geo files that no setup uses."""
        sources, kept_geo = {each.source for each in in_use}, {each.geo for each in in_use}
        for source in self.sources()[KEPT_VERSIONS:]:
            if source not in sources:
                shutil.rmtree(self._programs / source, ignore_errors=True)
        for each in _entries(self._geo):
            if each.name not in kept_geo:
                shutil.rmtree(each, ignore_errors=True)

    # Geo files

    def geo_path(self, setup: Setup) -> Path | None:
        """Where its geo files lie; None when it has none of its own."""
        path = self._geo / setup.geo
        return path if setup.geo and path.is_dir() else None

    def geo_files(self, setup: Setup) -> dict[str, Path]:
        """Name to file, of every geo file this setup uses."""
        directory = self.geo_path(setup)
        return self.own_geo_files(setup.source) if directory is None else _geo_files_in(directory)

    def own_geo_files(self, source: str) -> dict[str, Path]:
        """Those that came with a program."""
        directory = self._bundled_geo if source == BUNDLED else self._programs / source
        return _geo_files_in(directory) if directory is not None else {}

    def new_geo(self, setup: Setup, files: Mapping[str, Path]) -> str:
        """The name of a new set: what the setup has, with these files instead or in addition."""
        name = secrets.token_hex(6)
        partial = private_directory(self._geo / f".{name}")
        for file_name, path in (self.geo_files(setup) | dict(files)).items():
            with suppress(OSError):
                os.link(path, partial / file_name, follow_symlinks=False)
                continue
            shutil.copyfile(path, partial / file_name)
            _sync(partial / file_name)
        sync_directory(partial)
        partial.rename(self._geo / name)
        sync_directory(self._geo)
        return name

    def drop_geo(self, name: str) -> None:
        """Throws a set away."""
        if name:
            shutil.rmtree(self._geo / name, ignore_errors=True)


def source_name(version: str, sha256: str) -> str:
    """The directory of an installed version."""
    return f"{version}{_MARK}{sha256.lower()[:_SHA_DIGITS]}"


def _geo_files_in(directory: Path) -> dict[str, Path]:
    found = sorted(directory.glob("*.dat")) if directory.is_dir() else []
    return {path.name: path for path in found if GEO_FILE.fullmatch(path.name) and path.is_file()}


def _entries(directory: Path) -> list[Path]:
    try:
        return [each for each in directory.iterdir() if not each.name.startswith(".") and each.is_dir()]
    except FileNotFoundError:
        return []


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
