"""`agent.update`: a new release beside this one, tried out, made the current one, and started by the launcher.

The answer comes before the restart. Xray is not touched: it outlives its agent, and the new one adopts it.
"""

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from xfleet_agent.desk import Verb
from xfleet_agent.parts import Parts
from xfleet_agent.releases import Releases
from xfleet_agent.version import agent_version
from xfleet_contracts import codec
from xfleet_contracts.errors import MessageMalformed
from xfleet_contracts.installs import (
    AGENT_UPDATE,
    AgentUpdate,
    AgentUpdating,
    Download,
    InstallRefused,
    InstallUnsupported,
)
from xfleet_runtime.files import private_directory
from xfleet_runtime.log import get_logger

NAME = AGENT_UPDATE
BUILD_TIMEOUT_S = 150.0
TRY_TIMEOUT_S = 45.0
RESTART_AFTER_S = 0.5
"""For the answer to leave."""
_WHEEL = re.compile(r"([A-Za-z0-9_.]+)-([A-Za-z0-9_.!+]+)(?:-[A-Za-z0-9_.]+)*\.whl")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]{0,63}")
_MARK = ".wheel"
_SHOWN = 400
_log = get_logger(__name__)


def verb(parts: Parts) -> Verb:
    """How it is carried out."""
    releases = parts.releases

    async def handle(body: msgspec.Raw) -> AgentUpdating:
        order = codec.decode(bytes(body), AgentUpdate)
        if not releases.upgradable:
            raise InstallUnsupported
        _check(order)
        answer = AgentUpdating(version=order.version, previous=agent_version())
        if order.version == agent_version():
            return answer
        release = await _made(releases, order, parts.settings.broker_proxy)
        await parts.worker.run(lambda: releases.switch(release, order.version, probation_s=order.probation_s))
        _log.info("switching to another release", version=order.version, previous=answer.previous)
        asyncio.get_running_loop().call_later(RESTART_AFTER_S, os.kill, os.getpid(), signal.SIGTERM)
        return answer

    return Verb(handler=handle, at_once=1)


def _check(order: AgentUpdate) -> None:
    """Raises `MessageMalformed` for what cannot be a release or a wheel."""
    if not _VERSION.fullmatch(order.version):
        raise MessageMalformed("This is no version.", field="version")
    named = _WHEEL.fullmatch(_file_name(order.wheel))
    if named is None or named[1] != "xfleet" or named[2] != order.version:
        raise MessageMalformed("The wheel is not xfleet's of that version.", field="wheel")
    for each in order.wheelhouse:
        if not _WHEEL.fullmatch(_file_name(each)):
            raise MessageMalformed("This is no wheel.", field="wheelhouse", name=_file_name(each)[:100])


async def _made(releases: Releases, order: AgentUpdate, proxy: str) -> str:
    """The name of a release that holds the new agent and can be imported; nothing is left of one that cannot."""
    release = order.version
    if (releases.place_of(release) / _MARK).exists():
        if (releases.place_of(release) / _MARK).read_text().strip() == order.wheel.sha256.lower():
            await _try_out(releases.place_of(release), order.version)
            return release
        release = f"{order.version}-{order.wheel.sha256[:8].lower()}"
    place, store = releases.place_of(release), releases.directory / "downloads"
    await asyncio.to_thread(_clear, place, store)
    try:
        private_directory(store)
        await _fetch_all(store, order, proxy)
        await _build(place, store, order)
        await _try_out(place, order.version)
        (place / _MARK).write_text(f"{order.wheel.sha256.lower()}\n", encoding="ascii")
    except BaseException:
        await asyncio.to_thread(_clear, place)
        raise
    finally:
        await asyncio.to_thread(_clear, store)
    await asyncio.to_thread(releases.prune)
    return release


async def _fetch_all(store: Path, order: AgentUpdate, proxy: str) -> None:
    from xfleet_agent.download import fetch  # noqa: PLC0415  needed once in a release, and large

    for each in (order.wheel, *order.wheelhouse):
        await fetch(each, store / _file_name(each), proxy=proxy)


async def _build(place: Path, store: Path, order: AgentUpdate) -> None:
    """A new environment: from the wheelhouse, or with what this one has and the new wheel in place of the old."""
    await _run([_base_python(), "-m", "venv", "--without-pip", str(place)], BUILD_TIMEOUT_S)
    pip = ["-m", "pip", "--isolated", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-index"]
    pip.append("--no-cache-dir")
    wanted = (order.wheel, *order.wheelhouse)
    listed = store / "requirements.txt"
    lines = [f"{(store / _file_name(each)).as_uri()} --hash=sha256:{each.sha256.lower()}\n" for each in wanted]
    listed.write_text("".join(lines), encoding="ascii")
    if not order.wheelhouse:
        await asyncio.to_thread(_inherit, place)
        pip.append("--no-deps")
    environment = {"PYTHONPATH": str(_pip_of(store)), "PIP_CONFIG_FILE": os.devnull}
    await _run(
        [str(place / "bin" / "python"), *pip, "--require-hashes", "-r", str(listed)], BUILD_TIMEOUT_S, environment
    )


async def _try_out(place: Path, version: str) -> None:
    asked = "import xfleet_agent.app, xfleet_agent.main, xfleet_agent.version as v; print(v.agent_version())"
    said = await _run([str(place / "bin" / "python"), "-I", "-c", asked], TRY_TIMEOUT_S)
    if said.strip().splitlines()[-1:] != [version]:
        raise InstallRefused(f"The new release says it is {said.strip()[:80]!r}, not {version}.")


async def _run(command: Sequence[str], timeout_s: float, environment: dict[str, str] | None = None) -> str:
    """What a program printed. Raises `InstallRefused` with its last words when it fails or takes too long."""
    child = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})}, start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(timeout_s):
            out, errors = await child.communicate()
    except TimeoutError:
        raise InstallRefused(f"{Path(command[0]).name} did not end within {timeout_s:.0f} s.") from None
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
    if child.returncode:
        last = (errors or out).decode(errors="replace").strip()[-_SHOWN:]
        raise InstallRefused(f"The new release cannot be used here: {last}", exit_code=child.returncode)
    return out.decode(errors="replace")


def _inherit(place: Path) -> None:
    """Everything that is installed beside our own wheel here."""
    old, new = _site(Path(sys.prefix)), _site(place)
    for each in old.iterdir():
        if each.name.startswith(("xfleet", "_editable_impl_xfleet")) or each.name == "__pycache__":
            continue
        if each.is_dir():
            shutil.copytree(each, new / each.name, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(each, new / each.name)


def _site(environment: Path) -> Path:
    return environment / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def _pip_of(store: Path) -> Path:
    """Where pip can be imported from: the wheel that came along, else this environment."""
    return next(iter(sorted(store.glob("pip-*.whl"))), _site(Path(sys.prefix)))


def _base_python() -> str:
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def _file_name(file: Download) -> str:
    """The file's name, out of its URL."""
    return unquote(urlsplit(file.url).path).rpartition("/")[2]


def _clear(*places: Path) -> None:
    for place in places:
        shutil.rmtree(place, ignore_errors=True)


__all__ = ["NAME", "verb"]
