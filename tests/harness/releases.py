"""Releases of Xray and a mirror that serves them, or misbehaves."""

import asyncio
import hashlib
import io
import sys
import textwrap
import zipfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from xfleet_contracts.installs import Download, XrayInstall
from xfleet_xraykit import wheel_child
from xfleet_xraykit.launcher import _site

WELL = 'os.execv(sys.executable, command("run"))'
AT_ONCE = "sys.exit(1)"
AFTER_A_WHILE = """\
child = subprocess.Popen(command("run"), stdin=0)
time.sleep(float(os.environ.get("XRAY_LIVES_S", {lives_s})))
child.kill()
child.wait()
sys.exit(2)"""
REFUSING = 'print("Failed to start: main: failed to load config > this one knows nothing"); sys.exit(23)'


def program(version: str, *, runs: str = WELL, tests: str = "", lives_s: float = 0.7) -> bytes:
    """A program that behaves like an official Xray: it speaks its command line and becomes the wheel's."""
    text = f"""\
        #!{sys.executable}
        import os, subprocess, sys, time
        def command(mode):
            return [sys.executable, "-I", "-S", {str(wheel_child.__file__)!r}, mode, {_site()!r}, str(os.getpid())]
        words = sys.argv[1:]
        if words == ["version"]:
            print("Xray {version} (Xray, Penetrates Everything.) stand-in (go1.27 linux/amd64)")
            sys.exit(0)
        assert words[-4:] == ["-format", "json", "-c", "stdin:"], words
        if "-test" in words:
            TESTS
            code = subprocess.run(command("probe"), stdin=0).returncode
            print("Configuration OK." if code != 23 else "Failed to start: main: failed to load config")
            sys.exit(23 if code == 23 else 0)
        RUNS
        """
    lines = textwrap.dedent(text)
    lines = lines.replace("    TESTS", textwrap.indent(tests, "    ") if tests else "    pass")
    return lines.replace("RUNS", runs.replace("{lives_s}", str(lives_s))).encode()


def archive(files: Mapping[str, bytes]) -> bytes:
    """A zip as the project releases it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    return out.getvalue()


def release(version: str, *, runs: str = WELL, tests: str = "", lives_s: float = 0.7, **geo: bytes) -> bytes:
    """A release archive; `geo` are its geo files, without their ending."""
    files = {
        "LICENSE": b"words",
        "README.md": b"words",
        "xray": program(version, runs=runs, tests=tests, lives_s=lives_s),
    }
    return archive(files | {f"{name}.dat": data for name, data in geo.items()})


@dataclass
class Mirror:
    """An HTTP server on loopback."""

    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    hold: asyncio.Event | None = None
    """While set and not fired, a file's second half waits."""
    cut_after_bytes: int | None = None
    asked: list[str] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator["Mirror"]:
        self = cls()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    def offer(self, data: bytes, name: str = "") -> Download:
        """Serves these bytes; how to fetch them."""
        digest = hashlib.sha256(data).hexdigest()
        path = f"/{name or digest[:8]}.zip"
        self.files[path] = data
        return Download(url=f"http://127.0.0.1:{self.port}{path}", sha256=digest)

    def xray(self, version: str, **options: object) -> XrayInstall:
        """An order for a release of this version."""
        return XrayInstall(version=version, archive=self.offer(release(version, **options)))  # type: ignore[arg-type]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            words = (await reader.readuntil(b"\r\n\r\n")).decode().split()
            self.asked.append(words[1])
            await self._answer(words[1], writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> None:
        if path in self.redirects:
            writer.write(
                f"HTTP/1.1 302 Found\r\nLocation: {self.redirects[path]}\r\nContent-Length: 0\r\n\r\n".encode()
            )
            return
        data = self.files.get(path)
        if data is None:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode())
        if self.cut_after_bytes is not None:
            writer.write(data[: self.cut_after_bytes])
            return
        writer.write(data[: len(data) // 2])
        if self.hold is not None:
            await writer.drain()
            await self.hold.wait()
        writer.write(data[len(data) // 2 :])
