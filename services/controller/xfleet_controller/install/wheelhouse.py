"""Fills the wheelhouse: what agents on other kinds of machines need, from the package index, checked by SHA-256."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from xfleet_controller.install.closure import pinned_text
from xfleet_controller.install.library import find_pip
from xfleet_controller.install.wheels import ARCHITECTURES, PYTHONS, list_wheels
from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import private_directory

DOWNLOAD_TIMEOUT_S = 900
GLIBCS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014", "manylinux_2_12", "manylinux2010")
"""No newer than RHEL 9 has."""
MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}


def fill(directory: Path, pythons: Sequence[str], machines: Sequence[str], say: Callable[[str], None]) -> None:
    """Downloads what is missing for each. Raises `Unusable` with pip's reason."""
    for python in pythons:
        if python not in PYTHONS:
            raise Unusable(f"There is no agent for Python {python!r}. Known: {', '.join(PYTHONS)}.")
    for machine in machines:
        if machine not in MACHINES:
            raise Unusable(f"There is no agent for {machine!r}. Known: amd64, arm64.")
    private_directory(directory)
    kinds = [(python, MACHINES[machine]) for python in pythons for machine in machines]
    for python, machine in dict.fromkeys(kinds):
        say(f"Fetching wheels for Python {python} on {machine} …")
        _download(directory, python, machine)
    size_bytes = sum(wheel.path.stat().st_size for wheel in list_wheels(directory))
    say(f"{len(list_wheels(directory))} wheels, {size_bytes / 1e6:.0f} MB, in {directory}")


def _download(directory: Path, python: str, machine: str) -> None:
    with tempfile.TemporaryDirectory(prefix="xfleet-") as name:
        pinned = Path(name, "pinned.txt")
        pinned.write_text(pinned_text(), encoding="ascii")
        command = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", "download", "--quiet"]
        command += [
            "--no-deps",
            "--only-binary",
            ":all:",
            "--require-hashes",
            "-r",
            str(pinned),
            "--dest",
            str(directory),
        ]
        command += ["--python-version", python, "--implementation", "cp"]
        for each in GLIBCS:
            command += ["--platform", f"{each}_{machine}"]
        pip = find_pip()
        environment = {**os.environ, **({"PYTHONPATH": str(pip)} if pip else {})}
        try:
            done = subprocess.run(  # noqa: S603  our own words
                command, env=environment, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise Unusable("The package index is too slow. Try again later; what came is kept.") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in said if line.startswith("ERROR")] or said or ["pip said nothing"]
        raise Unusable(f"The wheels cannot be fetched: {errors[-1].removeprefix('ERROR: ')[:300]}")


__all__ = ["ARCHITECTURES", "MACHINES", "fill"]
