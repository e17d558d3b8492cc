"""Installer: brings another Xray program or other geo files into use, or leaves everything as it was.

The new Xray is asked for its version and about the configuration first; then it runs beside the old one for a short
trial, in which both take connections. Only an Xray that stayed up takes over, so one that fails costs nobody's
connection but those it took itself. An agent that dies meanwhile finds the old one serving.
"""

import asyncio
import hashlib
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from xfleet_agent.apply import Applier
from xfleet_agent.aside import aside
from xfleet_agent.setups import GEO_FILE, PROGRAM, VERSION, Setup, Setups, source_name
from xfleet_agent.trials import Program
from xfleet_agent.xray import XrayDriver
from xfleet_contracts.errors import MessageMalformed
from xfleet_contracts.installs import (
    BUNDLED,
    Download,
    GeoFile,
    GeoFilesUpdated,
    InstallRefused,
    VersionNotInstalled,
    XrayInstall,
    XrayInstalled,
)
from xfleet_runtime.errors import Unusable
from xfleet_xraykit.errors import ConfigRefused, XrayDown, XrayHung
from xfleet_xraykit.launcher import BinaryLauncher, Launcher
from xfleet_xraykit.validate import validate

MAX_GEO_FILES = 16


class Installer:
    """One change of program or geo files at a time."""

    def __init__(
        self, setups: Setups, driver: XrayDriver, applier: Applier, *, trial_s: float, proxy: str = ""
    ) -> None:
        self.setups = setups
        self._driver = driver
        self._applier = applier
        self._trial_s = trial_s
        self._proxy = proxy
        self._lock = asyncio.Lock()

    # Programs

    async def install(self, order: XrayInstall) -> XrayInstalled:
        """Switches to this version, fetching it if an archive is named. Raises the refusals of `installs`."""
        version = order.version.removeprefix("v")
        if not VERSION.fullmatch(version) or (version == BUNDLED and order.archive is not None):
            raise MessageMalformed("A version is letters, digits, dots and dashes.", field="version")
        async with self._lock:
            await self._driver.learn_version()
            previous, before = self._driver.version, self._driver.setup
            source = await self._source(version, order.archive)
            if source != before.source:
                await self._switch(msgspec.structs.replace(before, source=source, geo=await self._geo_for(source)))
            self.setups.use(self._driver.setup)
            await aside(self.setups.prune, self._driver.setup, before)
            return XrayInstalled(
                version=self._driver.version, previous=previous, available=await aside(self.setups.versions)
            )

    async def _source(self, version: str, archive: Download | None) -> str:
        found = await aside(self.setups.find_source, version, archive.sha256 if archive else "")
        if found is not None:
            return found
        if archive is None:
            raise VersionNotInstalled(version=version, available=await aside(self.setups.versions))
        return await self._fetch_program(version, archive)

    async def _fetch_program(self, version: str, archive: Download) -> str:
        from xfleet_agent.download import fetch  # noqa: PLC0415  needed by few verbs only
        from xfleet_agent.unpack import unpack_release  # noqa: PLC0415  as above

        file, unpacked = self.setups.incoming(), self.setups.new_program()
        try:
            await fetch(archive, file, proxy=self._proxy)
            await aside(unpack_release, file, unpacked)
            (unpacked / PROGRAM).chmod(0o700)
            said = await self._asked_version(BinaryLauncher(unpacked / PROGRAM))
            if said != version:
                raise InstallRefused(f"The program in the archive calls itself {said}, not {version}.", version=said)
            source = source_name(version, archive.sha256)
            await aside(self.setups.keep_program, unpacked, source)
            return source
        finally:
            with suppress(OSError):
                file.unlink()
            shutil.rmtree(unpacked, ignore_errors=True)

    async def _asked_version(self, launcher: Launcher) -> str:
        try:
            return await launcher.version()
        except Unusable as error:
            raise InstallRefused(f"The program does not run on this server: {error}") from error
        except TimeoutError:
            raise InstallRefused("The program does not say its version.") from None

    async def _geo_for(self, source: str) -> str:
        """The geo files in use, and those of the release that are not there yet."""
        now = self._driver.setup
        own = self.setups.own_geo_files(source)
        known = self.setups.geo_files(now)
        new = {name: path for name, path in own.items() if name not in known}
        if not new and (now.geo or not known):
            return now.geo
        return await aside(self.setups.new_geo, now, new)

    # Geo files

    async def update_geo(self, files: tuple[GeoFile, ...]) -> GeoFilesUpdated:
        """Fetches geo files and lets a new Xray read them. Raises the refusals of `installs`."""
        from xfleet_agent.download import TIMEOUT_S, fetch  # noqa: PLC0415  needed by few verbs only

        names = [each.name for each in files]
        if not 0 < len(names) <= MAX_GEO_FILES or len(set(names)) != len(names):
            raise MessageMalformed(f"An update names 1 to {MAX_GEO_FILES} different files.", field="files")
        for name in names:
            if not GEO_FILE.fullmatch(name):
                raise MessageMalformed("A geo file is named like geoip.dat.", field="name", name=name[:80])
        fetched: dict[str, Path] = {}
        try:
            deadline_s = time.monotonic() + TIMEOUT_S
            for each in files:
                path = self.setups.incoming()
                await fetch(each.file, path, proxy=self._proxy, timeout_s=max(0.0, deadline_s - time.monotonic()))
                fetched[each.name] = path
            return await self.place_geo(fetched)
        finally:
            for path in fetched.values():
                path.unlink(missing_ok=True)

    async def place_geo(self, files: Mapping[str, Path]) -> GeoFilesUpdated:
        """Puts files of this file system into use. Raises `InstallRefused` when Xray does not run with them."""
        async with self._lock:
            before = self._driver.setup
            known = self.setups.geo_files(before)
            changed = await aside(_changed, known, files)
            if not changed:
                return GeoFilesUpdated()
            geo = await aside(self.setups.new_geo, before, {name: files[name] for name in changed})
            await self._switch(msgspec.structs.replace(before, geo=geo))
            await aside(self.setups.prune, self._driver.setup, before)
            return GeoFilesUpdated(changed=changed, restarted=self._driver.wanted_running)

    # Both

    async def _switch(self, setup: Setup) -> None:
        before = self._driver.setup
        try:
            await self._try_and_hand_over(setup)
        except BaseException:
            if setup.geo != before.geo:
                await asyncio.shield(aside(self.setups.drop_geo, setup.geo))
            raise

    async def _try_and_hand_over(self, setup: Setup) -> None:
        launcher = await aside(self.setups.launcher, setup)
        if launcher is None:
            raise VersionNotInstalled(version=setup.version)
        program = Program(setup=setup, launcher=launcher, version=await self._asked_version(launcher))
        state = await self._applier.restart_state()
        try:
            problems = await validate(launcher, self._driver.processes.probe_config(state))
        except (ConfigRefused, Unusable, TimeoutError) as error:
            raise InstallRefused(f"It does not take this server's configuration: {error}") from error
        if problems:
            raise InstallRefused(
                f"It does not take this server's configuration: {problems[0].reason}",
                culprits=[f"{each.key.kind} {each.key.id}" for each in problems[:10]],
            )
        if not self._driver.wanted_running:
            await self._driver.choose(program)
            return
        try:
            new = await self._driver.trials.try_out(program, state, trial_s=self._trial_s)
            await self._applier.hand_over(new, program)
        except (XrayDown, XrayHung, Unusable) as error:
            raise InstallRefused(f"It does not stay up on this server: {error} The old one goes on.") from error


def _changed(known: Mapping[str, Path], files: Mapping[str, Path]) -> tuple[str, ...]:
    return tuple(name for name, path in files.items() if name not in known or _digest(known[name]) != _digest(path))


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
