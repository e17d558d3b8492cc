"""A whole fleet of one, started as a newcomer starts it: `xfleet up` in a directory of its own."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from harness.broker import eventually
from harness.process import Running, running, script
from harness.xray import HEADER, Sink, Stream, XrayClient, open_stream
from xfleet_controller.bus import Commander
from xfleet_controller.db import Database
from xfleet_controller.fleet.keyring import load_keys, open_vault
from xfleet_controller.servers.presence import Presence
from xfleet_nats.fleet import FleetIssuer, FleetKeys
from xfleet_runtime.broker import BrokerLink
from xfleet_runtime.clock import SystemClock

PASSWORD = "correct horse battery"
READY_WITHIN_S = 60.0
COUNTED_WITHIN_S = 15.0
QUICK = {"XFLEET_METER_INTERVAL_S": "1", "XFLEET_HEARTBEAT_INTERVAL_S": "2"}
"""Short rhythms, so that tests wait less."""


class Api:
    """`/api/v1` as a script would use it; anything but success raises with the answer."""

    def __init__(self, panel_url: str, *, verify: ssl.SSLContext | bool = True) -> None:
        self.client = httpx.AsyncClient(base_url=f"{panel_url}api/v1/", verify=verify, timeout=40)

    async def call(self, method: str, path: str, **more: Any) -> Any:
        answer = await self.client.request(method, path, **more)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def get(self, path: str, **params: Any) -> Any:
        return await self.call("GET", path, params=params)

    async def post(self, path: str, body: Mapping[str, Any], **params: Any) -> Any:
        return await self.call("POST", path, json=body, params=params)

    async def patch(self, path: str, body: Mapping[str, Any], **params: Any) -> Any:
        return await self.call("PATCH", path, json=body, params=params)

    async def delete(self, path: str, **params: Any) -> Any:
        return await self.call("DELETE", path, params=params)

    async def sign_in(self, password: str = PASSWORD) -> None:
        token = (await self.post("session", {"username": "admin", "password": password}))["token"]
        self.client.headers["Authorization"] = f"Bearer {token}"


@dataclass
class Fleet:
    """A running `xfleet up` and what it told."""

    data_dir: Path
    up: Running
    panel_url: str
    broker_url: str
    api: Api = field(repr=False)

    def pid_of(self, part: str) -> int:
        """The process number of a part; 0 while it does not run."""
        try:
            started = json.loads((self.data_dir / "run.json").read_text()).get(part)
        except (OSError, ValueError):
            return 0
        return started["pid"] if started else 0

    def xray_pids(self) -> list[int]:
        """Processes that run Xray for the agent of this fleet; they belong to no part."""
        return xray_pids(self.data_dir / "agent")

    async def kill(self, *parts: str) -> None:
        """`kill -9` of these parts; returns when they are gone, not when they are back."""
        for part in parts:
            pid = self.pid_of(part)
            assert pid, f"{part} does not run"
            os.kill(pid, signal.SIGKILL)
            await eventually(lambda pid=pid: not _alive(pid))

    async def comes_back(self, part: str, *, within_s: float = 40) -> int:
        """Waits until the part runs (again); its process number."""
        return await eventually(lambda: (pid := self.pid_of(part)) and _alive(pid) and pid, within_s=within_s)

    async def server(self) -> dict[str, Any]:
        """The server `local`."""
        return (await self.api.get("servers"))["items"][0]

    async def wait_online(self, *, within_s: float = 40) -> dict[str, Any]:
        """Waits until the server is online and runs what it should."""

        async def settled() -> dict[str, Any] | None:
            try:
                server = await self.server()
            except httpx.HTTPError:
                return None
            applied = server["applied_revision"] == server["desired_revision"]
            return server if server["status"] == "online" and applied else None

        return await eventually(settled, within_s=within_s, every_s=0.2)

    async def prepare_for_loopback(self) -> None:
        """Lets clients reach sinks on loopback, and links carry an address that works here."""
        server = await self.wait_online()
        change = {"public_address": "127.0.0.1", "allow_private_destinations": True}
        await self.api.patch(f"servers/{server['id']}", change, wait=20)

    async def add_ws_inbound(self, port: int, remark: str = "ws") -> dict[str, Any]:
        stream = {"network": "ws", "wsSettings": {"path": f"/{remark}"}}
        return await self._add_inbound(port, remark, stream)

    async def add_reality_inbound(self, port: int, target_port: int, remark: str = "reality") -> dict[str, Any]:
        reality = {"target": f"127.0.0.1:{target_port}", "serverNames": ["reality.test"]}
        return await self._add_inbound(
            port, remark, {"network": "raw", "security": "reality", "realitySettings": reality}
        )

    async def _add_inbound(self, port: int, remark: str, stream: dict[str, Any]) -> dict[str, Any]:
        body = {
            "server_id": (await self.server())["id"],
            "remark": remark,
            "listen": "127.0.0.1",
            "port": port,
            "protocol": "vless",
            "settings": {},
            "stream_settings": stream,
            "enabled": True,
        }
        return await self.api.post("inbounds", body, wait=20)

    async def add_client(self, name: str, *inbounds: dict[str, Any], **more: Any) -> dict[str, Any]:
        body = {"name": name, "inbound_ids": [inbound["id"] for inbound in inbounds], "enabled": True, **more}
        return await self.api.post("clients", body, wait=20)

    async def subscription(self, client: Mapping[str, Any]) -> list[str]:
        """The links a VPN app reads from the client's subscription."""
        async with httpx.AsyncClient(verify=False) as app:
            answer = await app.get(client["subscription_url"])
        assert answer.is_success, answer.text
        return base64.b64decode(answer.text).decode().split()

    async def counted(self, client_id: int) -> tuple[int, int]:
        """Bytes up and down of a client, as the ledger has them."""
        client = await self.api.get(f"clients/{client_id}")
        return client["up_bytes"], client["down_bytes"]

    async def wait_counted(self, client_id: int, up: int, down: int, *, within_s: float = COUNTED_WITHIN_S) -> None:
        """Waits until the ledger has exactly these bytes."""
        last: tuple[int, int] = (0, 0)

        async def exact() -> bool:
            nonlocal last
            try:
                last = await self.counted(client_id)
            except (httpx.HTTPError, AssertionError):
                return False
            return last == (up, down)

        try:
            await eventually(exact, within_s=within_s, every_s=0.2)
        except AssertionError:
            raise AssertionError(f"counted {last}, moved {(up, down)} within {within_s} s\n{self.tail()}") from None

    async def events(self, stream: str) -> list[dict[str, Any]]:
        """What lies in one of the broker's event streams."""
        keys = await _fleet_keys(self.data_dir)
        credentials = FleetIssuer(keys).bus_credentials("ctl", "harness", (self.broker_url,))
        async with BrokerLink(credentials, name="harness") as link:
            await link.wait_connected(10)
            state = (await link.js.stream_info(stream)).state
            numbers = range(state.first_seq, state.last_seq + 1) if state.messages else ()
            return [json.loads((await link.js.get_msg(stream, number)).data or b"{}") for number in numbers]

    @asynccontextmanager
    async def commander(self) -> AsyncIterator[Commander]:
        """Sends what only a controller may: signed orders to agents."""
        keys = await _fleet_keys(self.data_dir)
        clock = SystemClock()
        credentials = FleetIssuer(keys, clock).bus_credentials("ctl", "harness", (self.broker_url,))
        async with BrokerLink(credentials, name="harness") as link:
            await link.wait_connected(10)
            yield Commander(link, keys.command_key(), Presence(clock), clock)

    def tail(self, lines: int = 12) -> str:
        """The ends of all logs, for a failure's message."""
        logs = sorted((self.data_dir / "logs").glob("*.log"))
        ends = {log.name: log.read_text(errors="replace").splitlines()[-lines:] for log in logs}
        return "\n".join([self.up.said(), *(f"--- {name}\n" + "\n".join(end) for name, end in ends.items())])


@asynccontextmanager
async def fleet_up(
    directory: Path,
    *options: str,
    environment: Mapping[str, str] | None = None,
    password: str = PASSWORD,
    sign_in: bool = True,
) -> AsyncIterator[Fleet]:
    """`xfleet up` over `directory/data` on free ports until the end of the block, with the API signed in."""
    data_dir, ready = directory / "data", directory / "ready.json"
    ready.unlink(missing_ok=True)
    command = [script("xfleet"), "up", "--data-dir", str(data_dir), "--ready-file", str(ready), *options]
    if "--panel-port" not in options:
        command += ["--panel-port", "0", "--broker-port", "0"]
    given = {**QUICK, "XFLEET_ADMIN_PASSWORD": password, **(environment or {})}
    async with running(command, directory / "up.log", environment=given) as up:
        try:
            told = await eventually(lambda: _told(ready, up), within_s=READY_WITHIN_S, every_s=0.05)
        except AssertionError:
            raise AssertionError(f"not ready\n{up.said()}") from None
        verify = ssl.create_default_context() if told["panel_url"].startswith("https") else True
        if isinstance(verify, ssl.SSLContext):
            verify.load_verify_locations(data_dir / "tls" / "ca.crt")
        api = Api(told["panel_url"], verify=verify)
        fleet = Fleet(data_dir, up, told["panel_url"], told["broker_url"], api)
        try:
            if sign_in:
                await api.sign_in(password)
            yield fleet
        finally:
            await api.client.aclose()
            leftovers = [*(fleet.pid_of(part) for part in ("agent", "controller", "broker", "bot")), *fleet.xray_pids()]
            with contextlib.suppress(TimeoutError):
                await up.end(within_s=45)
            kill_hard(*leftovers, *fleet.xray_pids())


async def answers(app: XrayClient, sink: Sink, *, within_s: float = 2.0) -> bool:
    """Whether a new stream gets something back at once; unlike `passes` it does not wait for the stream's end."""
    try:
        async with asyncio.timeout(within_s):
            stream = await open_stream(app, sink.port, host=sink.host)
            try:
                await stream.send(HEADER.pack(0, 10))
                return await stream.receive(10) == bytes(10)
            finally:
                await stream.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, AssertionError):
        return False


def xray_pids(state_dir: Path) -> list[int]:
    """Processes that run Xray for the agent over this directory."""
    found = []
    for process in psutil.process_iter(["pid"]):
        with contextlib.suppress(psutil.Error):
            if "xray" in " ".join(process.cmdline()) and f"{state_dir}/" in _opened(process.pid):
                found.append(process.pid)
    return found


def kill_hard(*pids: int) -> None:
    """`kill -9` of those that still live."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            if pid:
                os.kill(pid, signal.SIGKILL)


class Paced:
    """A transfer that takes its time, so that things can be killed in its middle; exact to the byte."""

    def __init__(self, stream: Stream, up_bytes: int, down_bytes: int, seconds: float) -> None:
        self._stream = stream
        self._left = {"up": up_bytes, "down": down_bytes}
        self._steps = max(1, int(seconds * 20))
        self._total = {"up": HEADER.size + up_bytes, "down": down_bytes}
        self._pause_s = 0.05
        self._task = asyncio.ensure_future(self._move())

    @classmethod
    async def start(cls, client: XrayClient, sink: Sink, *, up_bytes: int, down_bytes: int, seconds: float) -> Self:
        """Begins to move so much through the client, spread over that time."""
        stream = await open_stream(client, sink.port, host=sink.host)
        await stream.send(HEADER.pack(up_bytes, down_bytes))
        return cls(stream, up_bytes, down_bytes, seconds)

    @property
    def running(self) -> bool:
        return not self._task.done()

    async def finish(self, *, within_s: float = 60) -> tuple[int, int]:
        """Bytes sent and received; raises what interrupted the transfer."""
        async with asyncio.timeout(within_s):
            await self._task
        return self._total["up"], self._total["down"]

    def hurry(self) -> None:
        """What was to happen meanwhile has happened: the rest need not take its time."""
        self._pause_s = 0

    async def abort(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _move(self) -> None:
        try:
            await asyncio.gather(self._upload(), self._download())
            self._stream.writer.write_eof()
            assert await self._stream.reader.read() == b""
        finally:
            await self._stream.close()

    async def _upload(self) -> None:
        for size in _slices(self._left["up"], self._steps):
            await self._stream.send(bytes(size))
            await asyncio.sleep(self._pause_s)

    async def _download(self) -> None:
        for size in _slices(self._left["down"], self._steps):
            await self._stream.receive(size, timeout_s=30)
            await asyncio.sleep(self._pause_s)


async def _fleet_keys(data_dir: Path) -> FleetKeys:
    database = Database(f"sqlite+aiosqlite:///{data_dir / 'xfleet.db'}")
    try:
        keys = await load_keys(database, await open_vault(database, data_dir / "keys" / "key-file"))
    finally:
        await database.close()
    assert keys is not None
    return keys


def _slices(count: int, steps: int) -> list[int]:
    each, rest = divmod(count, steps)
    return [each + (at < rest) for at in range(steps)]


def _told(ready: Path, up: Running) -> dict[str, Any] | None:
    if up.child.returncode is not None:
        raise AssertionError(f"xfleet up ended with {up.child.returncode}")
    return json.loads(ready.read_text()) if ready.exists() else None


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _opened(pid: int) -> str:
    """The paths a process has open, in one text."""
    names = []
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                names.append(str(descriptor.readlink()))
    return "\n".join(names)
