"""Writes what an agent's machine needs from PyPI, pinned by SHA-256, out of uv.lock (`make docs` runs it)."""

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "services/controller/xfleet_controller/install/pinned.txt"
PYTHONS = ("311", "312", "313", "314")
MACHINES = ("x86_64", "aarch64")


def main() -> None:
    """Writes the file."""
    TARGET.write_text(render(), encoding="ascii")


def render() -> str:
    """Requirement lines with hashes, by name."""
    packages = {package["name"]: package for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    lines = [_line(packages[name]) for name in sorted(_closure(packages))]
    return "".join(lines)


def _closure(packages: dict[str, Any]) -> set[str]:
    project = packages["xfleet"]
    waiting = [*project["dependencies"], *project["optional-dependencies"]["agent"], {"name": "xray-core"}]
    found: set[str] = set()
    while waiting:
        wanted = waiting.pop()
        package = packages[wanted["name"]]
        for extra in wanted.get("extra", []):
            waiting += package.get("optional-dependencies", {}).get(extra, [])
        if wanted["name"] not in found and "win32" not in wanted.get("marker", ""):
            found.add(wanted["name"])
            waiting += package.get("dependencies", [])
    return found


def _line(package: dict[str, Any]) -> str:
    wheels = [wheel for wheel in package.get("wheels", []) if _is_wanted(wheel["url"].rpartition("/")[2])]
    hashes = "".join(f" --hash={digest}" for digest in sorted({wheel["hash"] for wheel in wheels}))
    return f"{package['name']}=={package['version']}{hashes}\n"


def _is_wanted(name: str) -> bool:
    python, abi, platform = name.removesuffix(".whl").split("-")[-3:]
    here = platform == "any" or ("manylinux" in platform and platform.endswith(MACHINES))
    exact = any(f"cp{each}" in python.split(".") and abi == f"cp{each}" for each in PYTHONS)
    return here and (
        exact or "none" in abi or (abi.split(".")[0] == "abi3" and bool(re.search(r"cp3(6|7|8|9|10|11)\b", python)))
    )


if __name__ == "__main__":
    main()
