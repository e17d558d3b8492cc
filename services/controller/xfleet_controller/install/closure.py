"""What an agent is made of: the projects that its machine needs beside our own wheel."""

import re
from importlib import resources
from importlib.metadata import PackageNotFoundError, distribution

from xfleet_controller.install.wheels import normalized

OURS = "xfleet"
XRAY = "xray-core"
EXTRA = "agent"
PINNED = "pinned.txt"
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[([^\]]*)\])?[^;]*(?:;(.*))?")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")
PACKAGES = ("agent", "bot", "cli", "contracts", "controller", "migrations", "nats", "runtime", "ui", "xraykit")


def packages() -> tuple[str, ...]:
    """Our own import packages."""
    return tuple(f"xfleet_{name}" for name in PACKAGES)


def agents_projects() -> frozenset[str]:
    """Everything that the extra `agent` and Xray bring, as it is installed here.

    A requirement whose marker speaks of other machines is one that is not installed here; markers are not judged.
    """
    found: set[str] = set()
    waiting: list[tuple[str, frozenset[str]]] = [(OURS, frozenset({EXTRA})), (XRAY, frozenset())]
    while waiting:
        project, extras = waiting.pop()
        for name, wanted in _requirements(project, extras):
            if name not in found and _is_installed(name):
                found.add(name)
                waiting.append((name, wanted))
    return frozenset(found | {XRAY}) - {OURS}


def pinned_text() -> str:
    """The same for every platform: pinned, with the SHA-256 of every wheel on PyPI."""
    return resources.files("xfleet_controller.install").joinpath(PINNED).read_text(encoding="ascii")


def _requirements(project: str, extras: frozenset[str]) -> list[tuple[str, frozenset[str]]]:
    try:
        lines = distribution(project).requires or []
    except PackageNotFoundError:
        return []
    found: list[tuple[str, frozenset[str]]] = []
    for line in lines:
        parts = _REQUIREMENT.fullmatch(line)
        if parts is None:
            continue
        name, wanted, marker = parts.groups()
        asked = _EXTRA.findall(marker or "")
        if not asked or extras & set(asked):
            found.append(
                (normalized(name), frozenset(each.strip() for each in (wanted or "").split(",") if each.strip()))
            )
    return found


def _is_installed(project: str) -> bool:
    try:
        distribution(project)
    except PackageNotFoundError:
        return False
    return True


__all__ = ["OURS", "XRAY", "agents_projects", "normalized", "packages", "pinned_text"]
