"""Releases: where an agent that can replace itself was put, and the marks it shares with its launcher.

See `launch` for the directory's form. An agent that was installed in another way has none of this.
"""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from xfleet_agent.events import Events
from xfleet_agent.version import agent_version
from xfleet_runtime.files import write_private

KEPT_COUNT = 3


class Releases:
    """The directory that the launcher keeps."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    @property
    def upgradable(self) -> bool:
        """Whether this agent can put another in its place."""
        directory = self._directory
        return directory is not None and (directory / "launch").is_file() and (directory / "current").is_symlink()

    @property
    def directory(self) -> Path:
        """Where everything lies."""
        if self._directory is None:
            raise RuntimeError("an agent without a launcher")
        return self._directory

    @property
    def current(self) -> str:
        """The name of the release that is to run."""
        return (self.directory / "current").readlink().name

    def place_of(self, release: str) -> Path:
        """A release's directory."""
        return self.directory / "releases" / release

    def note_connected(self, events: Events) -> None:
        """Tells the launcher that this agent got onto the bus, and everybody how the last upgrade went."""
        if not self.upgradable:
            return
        with suppress(OSError):
            self._tell_outcome(events)
            mark = {"pid": os.getpid(), "version": agent_version()}
            write_private(self.directory / "connected", json.dumps(mark).encode())

    def switch(self, release: str, version: str, *, probation_s: float) -> None:
        """Makes a release the current one, on probation, from the next start on."""
        before = self.current
        pending = {
            "version": version, "release": release, "previous": before, "previous_version": agent_version(),
            "probation_s": probation_s, "starts_count": 0,
        }  # fmt: skip
        (self.directory / "failed.json").unlink(missing_ok=True)
        write_private(self.directory / "update.json", json.dumps(pending).encode())
        self._point("previous", before)
        self._point("current", release)

    def prune(self) -> None:
        """Removes old releases that nothing runs from; the newest few stay."""
        kept = {self.current}
        with suppress(OSError):
            kept.add((self.directory / "previous").readlink().name)
        places = sorted((self.directory / "releases").iterdir(), key=lambda place: place.stat().st_mtime, reverse=True)
        for place in places[KEPT_COUNT:]:
            if place.name not in kept and not _is_in_use(place):
                shutil.rmtree(place, ignore_errors=True)

    def _tell_outcome(self, events: Events) -> None:
        failed, pending = self._read("failed.json"), self._read("update.json")
        if failed is not None:
            told = {name: str(failed.get(name, "")) for name in ("version", "previous", "reason")}
            events.tell("agent_update_failed", **told)
            (self.directory / "failed.json").unlink(missing_ok=True)
        elif pending is not None and pending.get("version") == agent_version():
            events.tell("agent_updated", version=agent_version(), previous=str(pending.get("previous_version", "")))

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            return json.loads((self.directory / name).read_bytes())
        except (OSError, ValueError):
            return None

    def _point(self, name: str, release: str) -> None:
        partial = self.directory / f".{name}.new"
        partial.unlink(missing_ok=True)
        partial.symlink_to(Path("releases") / release)
        partial.replace(self.directory / name)


def _is_in_use(place: Path) -> bool:
    """Whether a process, such as an older Xray, was started from there."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):
                if f"{place}/".encode() in (process / "cmdline").read_bytes():
                    return True
    return False
