"""Wheels by their names: what they are, and which of them make a whole set for one Python on one kind of machine."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
ARCHITECTURES = ("x86_64", "aarch64")
_NAME = re.compile(
    r"([A-Za-z0-9_.]+)-([A-Za-z0-9_.!+]+)(?:-[0-9][A-Za-z0-9_.]*)?-([a-z0-9_.]+)-([a-z0-9_.]+)-([a-z0-9_.]+)\.whl"
)
_STABLE = re.compile(r"cp3([0-9]+)")


class Wheel(NamedTuple):
    """A wheel in a file."""

    path: Path
    project: str
    """Normalized name."""
    version: str
    pythons: tuple[str, ...]
    abis: tuple[str, ...]
    platforms: tuple[str, ...]


class WheelFile(NamedTuple):
    """What may be fetched: named by what is in it."""

    sha256: str
    size_bytes: int
    name: str
    path: Path


def normalized(name: str) -> str:
    """A project's name as everybody compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def find_wheel(path: Path) -> Wheel | None:
    """The wheel in this file, by the file's name; None when it is named otherwise."""
    found = _NAME.fullmatch(path.name)
    if found is None:
        return None
    name, version, *tags = found.groups()
    pythons, abis, platforms = (tuple(tag.split(".")) for tag in tags)
    return Wheel(path, normalized(name), version, pythons, abis, platforms)


def list_wheels(directory: Path) -> list[Wheel]:
    """The wheels of a directory, by name."""
    if not directory.is_dir():
        return []
    found = (find_wheel(path) for path in sorted(directory.iterdir()) if path.is_file())
    return [wheel for wheel in found if wheel is not None]


def fitness(wheel: Wheel, python: str, architecture: str) -> int:
    """How well a wheel suits this CPython with glibc on Linux; 0 not at all."""
    if not any(_is_for(platform, architecture) for platform in wheel.platforms):
        return 0
    minor = int(python.partition(".")[2])
    exact = f"cp3{minor}"
    if exact in wheel.abis and exact in wheel.pythons:
        return 4
    stable = [int(each[1]) for tag in wheel.pythons if (each := _STABLE.fullmatch(tag)) is not None]
    if "abi3" in wheel.abis and any(since <= minor for since in stable):
        return 3
    if "none" not in wheel.abis:
        return 0
    if exact in wheel.pythons:
        return 2
    return 1 if "py3" in wheel.pythons else 0


def choose_set(
    shelves: Sequence[Iterable[Wheel]], projects: Iterable[str], python: str, architecture: str
) -> list[Wheel] | None:
    """One wheel for each project, from the first shelf that has one; None when any is missing."""
    chosen: list[Wheel] = []
    for project in sorted(projects):
        best = next((found for shelf in shelves if (found := _best(shelf, project, python, architecture))), None)
        if best is None:
            return None
        chosen.append(best)
    return chosen


def _best(shelf: Iterable[Wheel], project: str, python: str, architecture: str) -> Wheel | None:
    fitting = [
        (fitness(wheel, python, architecture), wheel.version, wheel.path.name, wheel)
        for wheel in shelf
        if wheel.project == project and fitness(wheel, python, architecture)
    ]
    return max(fitting)[-1] if fitting else None


def _is_for(platform: str, architecture: str) -> bool:
    return platform == "any" or (platform.startswith(("manylinux", "linux_")) and platform.endswith(f"_{architecture}"))
