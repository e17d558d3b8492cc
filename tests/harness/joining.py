"""A machine that joins by the line, in a namespace behind NAT; and releases to upgrade it to."""

import asyncio
import base64
import functools
import hashlib
import http.server
import os
import threading
import time
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness.broker import eventually
from harness.fleet import QUICK, Fleet, kill_hard, xray_pids
from harness.netns import Behind
from harness.process import Outcome, run
from xfleet_contracts.installs import Download

INFO = "xfleet-{version}.dist-info"


@dataclass
class FarMachine:
    """Where the line is pasted: no package index, no home, no way in."""

    place: Path
    behind: Behind
    launcher: asyncio.subprocess.Process | None = None
    server_id: int = 0
    line: str = field(default="", repr=False)
    joined_s: float = 0.0

    @property
    def prefix(self) -> Path:
        return self.place / "opt"

    @property
    def state_dir(self) -> Path:
        return self.place / "state"

    @property
    def options(self) -> str:
        return f"--no-service --prefix {self.prefix} --state-dir {self.state_dir}"

    @property
    def release(self) -> str:
        """The name of the release that is to run."""
        return (self.prefix / "current").readlink().name

    async def paste(self, line: str, options: str = "") -> Outcome:
        """The line, as a person pastes it there."""
        environment = ("env", "-i", "HOME=/nonexistent", "PIP_NO_INDEX=1", f"PATH={os.environ['PATH']}")
        words = self.behind.command(*environment, "sh", "-c", f"{line} {options or self.options}")
        return await run(words, within_s=90)

    async def start(self) -> None:
        """The launcher, as systemd would start it."""
        environment = {"PATH": os.environ["PATH"], **QUICK}
        with (self.place / "launch.log").open("ab") as log:
            self.launcher = await asyncio.create_subprocess_exec(
                *self.behind.command(str(self.prefix / "launch"), "--state-dir", str(self.state_dir)),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
            )  # fmt: skip

    def said(self) -> str:
        return (self.place / "launch.log").read_text(errors="replace")[-4000:]


@asynccontextmanager
async def far_machine(place: Path, behind: Behind) -> AsyncIterator[FarMachine]:
    """A machine on which nothing is left afterwards."""
    machine = FarMachine(place, behind)
    try:
        yield machine
    finally:
        launcher = machine.launcher
        if launcher is not None and launcher.returncode is None:
            launcher.kill()
            await launcher.wait()
        await eventually(lambda: kill_hard(*xray_pids(machine.state_dir)) or not xray_pids(machine.state_dir))


async def join(fleet: Fleet, machine: FarMachine, name: str = "far") -> FarMachine:
    """Adds a server, pastes its line on the machine, starts it, and waits until the panel shows it online."""
    port = fleet.broker_url.rpartition(":")[2]
    await fleet.api.call("PUT", "fleet/broker-addresses", json={"urls": [f"{machine.behind.host_address}:{port}"]})
    machine.server_id = (await fleet.api.post("servers", {"name": name}))["id"]
    machine.line = await line_for(fleet, machine)
    started = time.monotonic()
    outcome = await machine.paste(machine.line)
    assert outcome.code == 0, outcome
    await machine.start()
    await wait_status(fleet, machine, "online")
    machine.joined_s = time.monotonic() - started
    return machine


def install_url(fleet: Fleet, machine: FarMachine) -> str:
    """Where the machine reaches `/install`."""
    scheme, _, address, path = fleet.panel_url.split("/", 3)
    return f"{scheme}//{machine.behind.host_address}:{address.rpartition(':')[2]}/{path}install"


async def line_for(fleet: Fleet, machine: FarMachine) -> str:
    """The line as the panel shows it to somebody who opened it under its outer address."""
    port = fleet.panel_url.split("/")[2].rpartition(":")[2]
    headers = {"host": f"{machine.behind.host_address}:{port}"}
    path = f"servers/{machine.server_id}/join-line"
    return (await fleet.api.call("POST", path, json={}, headers=headers))["line"]


async def wait_status(fleet: Fleet, machine: FarMachine, status: str, *, within_s: float = 30) -> None:
    """Waits until the panel shows this status."""

    async def shown() -> bool:
        return (await fleet.api.get(f"servers/{machine.server_id}"))["status"] == status

    try:
        await eventually(shown, within_s=within_s, every_s=0.1)
    except AssertionError:
        raise AssertionError(f"not {status} within {within_s} s\n{machine.said()}\n{fleet.tail()}") from None


def wheel_as(wheel: Path, version: str, directory: Path, *, instead: dict[str, str] | None = None) -> Path:
    """Our wheel under another version, with some of its files replaced."""
    path = directory / f"xfleet-{version}-py3-none-any.whl"
    rows: list[str] = []
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        was = next(name.partition("/")[0] for name in old.namelist() if name.endswith(".dist-info/METADATA"))
        for name in old.namelist():
            if name.endswith("/RECORD"):
                continue
            data = (instead or {}).get(name, "").encode() or old.read(name)
            if name.endswith("/METADATA"):
                data = data.replace(f"\nVersion: {was[7:-10]}\n".encode(), f"\nVersion: {version}\n".encode(), 1)
            to = name.replace(was, INFO.format(version=version), 1)
            new.writestr(to, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            rows.append(f"{to},sha256={digest},{len(data)}")
        record = f"{INFO.format(version=version)}/RECORD"
        new.writestr(record, "\n".join([*rows, f"{record},,", ""]))
    return path


@contextmanager
def mirror(directory: Path, host: str) -> Iterator[str]:
    """A web server over this directory; its base URL."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = http.server.ThreadingHTTPServer((host, 0), functools.partial(Quiet, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def download_of(path: Path, base_url: str) -> Download:
    """The order to fetch this file from there."""
    return Download(url=f"{base_url}/{path.name}", sha256=hashlib.sha256(path.read_bytes()).hexdigest())
