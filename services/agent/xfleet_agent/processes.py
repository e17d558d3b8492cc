"""Xray's processes of one agent: started under a lock they hold themselves, and found again whatever was forgotten.

Each start has a random id that names its socket and its lock file in the run directory. A process that still holds
such a lock file open is ours, even if the state that knew about it was restored from a backup.
"""

import asyncio
import os
import secrets
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from xfleet_agent.plan import Shape
from xfleet_runtime.files import lock_exclusively, private_directory
from xfleet_xraykit.api import XrayApi
from xfleet_xraykit.convert import ScratchConverter
from xfleet_xraykit.errors import XrayDown, XrayHung
from xfleet_xraykit.launcher import Launcher
from xfleet_xraykit.process import LOCK_FD, StartedXray, boot_id, is_running, start_time_ticks, stop
from xfleet_xraykit.render import render_config
from xfleet_xraykit.state import State

ADOPT_TIMEOUT_S = 3.0
OUTPUT_KEPT_BYTES = 1024 * 1024
LOG_KEPT_BYTES = 16 * 1024 * 1024


class RunningXray:
    """One live Xray and what it runs."""

    def __init__(self, record: StartedXray, api: XrayApi, shape: Shape) -> None:
        self.record = record
        self.api = api
        self.shape = shape
        self.rules_known = not shape.rules

    @property
    def start_id(self) -> str:
        """Names this process for the spool."""
        return self.record.start_id


class Processes:
    """Starts, finds and ends Xray processes."""

    def __init__(self, launcher: Launcher, *, run_dir: Path, log_dir: Path) -> None:
        self.launcher = launcher
        """What starts the next Xray."""
        self.closed = False
        """Set at the agent's own end: what an order would still start, nobody would end."""
        self._run_dir = private_directory(run_dir)
        self._log_dir = private_directory(log_dir)

    async def start(self, state: State, shape: Shape, *, launcher: Launcher | None = None) -> RunningXray:
        """Starts an Xray that runs this state; returns when it answers. Raises `XrayDown` or `XrayHung`.

        `launcher` is another program than the one in use.
        """
        if self.closed:
            raise XrayDown("The agent is ending.")
        launcher = launcher or self.launcher
        start_id = secrets.token_hex(8)
        socket, lock = self._run_dir / f"{start_id}.sock", self._run_dir / f"{start_id}.lock"
        access_log = str(self._log_dir / "access.log") if state.settings.access_log else None
        config = render_config(
            state, api_socket=str(socket), access_log=access_log, error_log=str(self._log_dir / "error.log")
        )
        output = self._output()
        descriptor = lock_exclusively(lock, owner="An Xray")
        try:
            record = await launcher.start(config, api_socket=socket, output=output, lock_fd=descriptor)
        finally:
            os.close(descriptor)
        record = msgspec.structs.replace(record, start_id=start_id)
        running = self._running(record, shape, launcher)
        try:
            await running.api.wait_ready(record)
        except BaseException:  # also when we are told to end: nobody would own what comes up later
            await asyncio.shield(self.end(running))
            raise
        return running

    async def find(self, record: StartedXray, shape: Shape) -> RunningXray | None:
        """The Xray of this record if it still runs and can be reached."""
        if not is_running(record):
            return None
        running = self._running(record, shape)
        try:
            await running.api.sys_stats(timeout_s=ADOPT_TIMEOUT_S)
        except XrayDown:
            await running.api.close()
            return None
        except XrayHung:
            return running
        return running

    def probe_config(self, state: State) -> dict[str, Any]:
        """A configuration to be judged without being run; it has a listener, or Xray would never say anything."""
        return render_config(state, api_socket=str(self._run_dir / "probe.sock"))

    def list_survivors(self) -> list[StartedXray]:
        """Every process that holds a lock of our run directory."""
        found: list[StartedXray] = []
        for directory in Path("/proc").iterdir():
            if not directory.name.isdigit() or int(directory.name) == os.getpid():
                continue
            try:
                target = (directory / "fd" / str(LOCK_FD)).readlink()
            except OSError:
                continue
            path = Path(str(target).removesuffix(" (deleted)"))
            ticks = start_time_ticks(int(directory.name))
            if path.parent == self._run_dir and path.suffix == ".lock" and ticks is not None:
                found.append(
                    StartedXray(
                        pid=int(directory.name), boot_id=boot_id(), start_time_ticks=ticks, start_id=path.stem,
                        api_socket=str(path.with_suffix(".sock")),
                    )
                )  # fmt: skip
        return sorted(found, key=lambda each: each.start_time_ticks, reverse=True)

    def unreachable(self, record: StartedXray) -> RunningXray:
        """A process that runs but whose API cannot be reached, to be ended."""
        return self._running(record, Shape())

    async def end(self, running: RunningXray) -> int | None:
        """Ends the process and forgets its files; its exit code when it was our child."""
        await running.api.close()
        code = await stop(running.record)
        self.forget(running)
        return code

    def forget(self, running: RunningXray) -> None:
        """Removes the files of a process that is gone."""
        for suffix in (".sock", ".lock"):
            (self._run_dir / f"{running.start_id}{suffix}").unlink(missing_ok=True)

    async def rotate_logs(self, xrays: Iterable[RunningXray], *, limit_bytes: int = LOG_KEPT_BYTES) -> bool:
        """Sets Xray's logs aside once they are long, and lets it open new ones; nothing it writes is lost.

        Raises `XrayDown`, `XrayHung` or `XrayRefused`; the logs are then where they were.
        """
        self._shorten_output()
        paths = [self._log_dir / name for name in ("error.log", "access.log")]
        long = [path for path in paths if path.exists() and path.stat().st_size > limit_bytes]
        for path in long:
            path.replace(path.with_suffix(".log.1"))
        if not long:
            return False
        reopened = False
        try:
            for running in xrays:
                await running.api.restart_logger()
                reopened = True
        finally:
            for path in [each for each in long if not reopened and not each.exists()]:
                path.with_suffix(".log.1").replace(path)
        return True

    def _shorten_output(self) -> None:
        """Xray appends what it prints to a file it was given open: that one is copied, then emptied."""
        path = self._log_dir / "output.log"
        if path.exists() and path.stat().st_size > OUTPUT_KEPT_BYTES:
            with path.open("rb") as file:
                file.seek(-OUTPUT_KEPT_BYTES, os.SEEK_END)
                path.with_suffix(".log.1").write_bytes(file.read(OUTPUT_KEPT_BYTES))
            os.truncate(path, 0)

    def leave(self) -> None:
        """Removes the run directory once nothing runs there."""
        with suppress(OSError):
            self._run_dir.rmdir()

    def tail(self) -> str:
        """The end of what Xray printed last."""
        path = self._log_dir / "output.log"
        return path.read_text(errors="replace")[-500:].strip() if path.exists() else ""

    def _running(self, record: StartedXray, shape: Shape, launcher: Launcher | None = None) -> RunningXray:
        api = XrayApi(record.api_socket, converter=ScratchConverter(launcher or self.launcher))
        return RunningXray(record, api, shape)

    def _output(self) -> Path:
        self._shorten_output()
        return self._log_dir / "output.log"


def describe_exit(code: int | None) -> str:
    """An exit code in words."""
    if code is None:
        return "it was gone"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
