"""The library: everything a new machine fetches, by its SHA-256, and the script that names it all.

Three shelves: `wheelhouse` (filled by `xfleet-controller wheelhouse`, any platform), `repacked` (made from what this
controller itself has installed: its own platform, without any package index), and pip, to install them with.
"""

import asyncio
import hashlib
import shutil
import sys
import time
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from xfleet_contracts.installs import AgentUpdate, Download
from xfleet_controller.install import closure, repack
from xfleet_controller.install.script import render_script
from xfleet_controller.install.wheels import (
    ARCHITECTURES,
    PYTHONS,
    Wheel,
    WheelFile,
    choose_set,
    find_wheel,
    list_wheels,
)
from xfleet_runtime.files import private_directory, write_private
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
OLD_KEPT_S = 86_400
LOOK_EVERY_S = 5.0


class Script(NamedTuple):
    """The script of the joining line."""

    sha256: str
    name: str
    content: bytes


class Library:
    """What `/install/` serves, out of one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.wheelhouse = directory / "wheelhouse"
        self.version = ""
        self.wheel: WheelFile | None = None
        """Our own."""
        self.sets: dict[str, list[WheelFile]] = {}
        """What `<python>-<machine>` needs beside it, such as `3.11-x86_64`."""
        self.script: Script | None = None
        self.files: dict[str, WheelFile] = {}
        """Everything, by SHA-256."""
        self.looking = asyncio.Lock()
        self.looked_at_s = -LOOK_EVERY_S
        self._hashes: dict[tuple[str, int, int], str] = {}

    def refresh(self) -> Script:
        """Looks at everything again, repacking what is new; takes seconds the first time."""
        own = distribution(closure.OURS)
        self.version = own.version
        projects = closure.agents_projects()
        wheel_path = self._repacked(own, closure.packages())
        repacked = [wheel for project in projects if (wheel := self._find_repacked(project)) is not None]
        bought, pip = list_wheels(self.wheelhouse), _pip()
        self.wheel = self._file_of(wheel_path)
        self.sets = {}
        for python in PYTHONS:
            for machine in ARCHITECTURES:
                chosen = choose_set((bought, repacked), projects, python, machine)
                if chosen is not None:
                    tools = choose_set((pip,), ("pip",), python, machine) or [] if _knows(python) else []
                    self.sets[f"{python}-{machine}"] = [self._file_of(wheel.path) for wheel in (*tools, *chosen)]
        content = render_script(self.version, self.wheel, self.sets).encode()
        self.script = Script(hashlib.sha256(content).hexdigest(), "agent.sh", content)
        self._keep_script(self.script)
        self.files = {each.sha256: each for wheels in (*self.sets.values(), [self.wheel]) for each in wheels}
        self.looked_at_s = time.monotonic()
        return self.script

    def find_script(self, sha256: str) -> bytes | None:
        """A script of today or of a line that was made lately."""
        if self.script is not None and self.script.sha256 == sha256:
            return self.script.content
        path = self.directory / "scripts" / f"{sha256}.sh"
        return path.read_bytes() if path.is_file() else None

    def _keep_script(self, script: Script) -> None:
        place = private_directory(self.directory / "scripts")
        for old in place.iterdir():
            if old.stem != script.sha256 and old.stat().st_mtime < time.time() - OLD_KEPT_S:
                old.unlink(missing_ok=True)
        path = place / f"{script.sha256}.sh"
        if not path.exists():
            write_private(path, script.content)

    def _find_repacked(self, project: str) -> Wheel | None:
        try:
            return find_wheel(self._repacked(distribution(project), ()))
        except (PackageNotFoundError, FileNotFoundError) as error:
            _log.warning("a package cannot be handed on", project=project, reason=str(error))
            return None

    def _repacked(self, made_of: Distribution, packages: tuple[str, ...]) -> Path:
        """The wheel of something installed here, made once for what it is now."""
        name = closure.normalized(made_of.name)
        place = self.directory / "repacked" / name / repack.fingerprint(made_of, packages)[:16]
        found = next(iter(place.glob("*.whl")), None)
        if found is not None:
            return found
        private_directory(place)
        made = repack.repack(made_of, packages, place)
        for old in place.parent.iterdir():
            if old != place and old.stat().st_mtime < time.time() - OLD_KEPT_S:
                shutil.rmtree(old, ignore_errors=True)
        return made

    def _file_of(self, path: Path) -> WheelFile:
        stat = path.stat()
        key = (str(path), stat.st_size, stat.st_mtime_ns)
        if key not in self._hashes:
            with path.open("rb") as file:
                self._hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return WheelFile(self._hashes[key], stat.st_size, path.name, path)


async def script_of(library: Library) -> Script:
    """The script of now; looks again when the last look is some seconds old."""
    async with library.looking:
        if library.script is None or time.monotonic() - library.looked_at_s > LOOK_EVERY_S:
            return await asyncio.to_thread(library.refresh)
        return library.script


async def update_for(library: Library, install_url: str, *, python: str, machine: str) -> AgentUpdate:
    """The order that brings an agent to this controller's own release, for its Python and kind of machine.

    `python` and `machine` are as `info` tells them (`3.11.7`, `x86_64`). Without wheels for them the order brings
    our own alone, and what is installed there beside it stays.
    """
    await script_of(library)
    if library.wheel is None:
        raise RuntimeError("a library without our own wheel")
    found = library.sets.get(f"{'.'.join(python.split('.')[:2])}-{machine}", [])
    return AgentUpdate(
        version=library.version,
        wheel=_download(install_url, library.wheel),
        wheelhouse=tuple(_download(install_url, each) for each in found),
    )


def _download(install_url: str, file: WheelFile) -> Download:
    return Download(url=f"{install_url}/{file.sha256}/{file.name}", sha256=file.sha256)


async def find_file(library: Library, sha256: str) -> WheelFile | None:
    """A file by its SHA-256."""
    if library.script is None:
        await script_of(library)
    found = library.files.get(sha256)
    return found if found is not None and found.path.is_file() else None


def find_pip() -> Path | None:
    """A wheel of pip, which can be run as it is; None where this Python came without."""
    found = _pip()
    return found[0].path if found else None


def _knows(python: str) -> bool:
    """Whether our pip was made for that Python; for a newer one the machine brings its own."""
    return int(python.partition(".")[2]) <= sys.version_info[1]


def _pip() -> list[Wheel]:
    """The pip that came with this Python: a wheel runs as it is."""
    places = (
        Path(sys.base_prefix) / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "ensurepip" / "_bundled",
    )
    return [wheel for place in (*places, Path("/usr/share/python-wheels")) for wheel in list_wheels(place)]
