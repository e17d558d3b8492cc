"""`xfleet up` as a newcomer uses it: start, resume, stop, kill, open to the world, and say clearly what is wrong."""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from harness.broker import eventually
from harness.fake_telegram import TOKEN, fake_telegram
from harness.fleet import PASSWORD, Fleet, fleet_up
from harness.process import Outcome, run, script

pytestmark = [pytest.mark.real_xray, pytest.mark.real_broker, pytest.mark.timeout(240)]
PARTS = ("agent", "controller", "broker")


def alive(*pids: int) -> list[int]:
    return [pid for pid in pids if pid and psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]


def pids_of(fleet: Fleet) -> list[int]:
    return [*(fleet.pid_of(part) for part in PARTS), *fleet.xray_pids()]


async def test_a_start_tells_everything_and_ctrl_c_ends_all_of_it(tmp_path: Path) -> None:
    async with fleet_up(tmp_path) as fleet:
        await fleet.wait_online()
        said = fleet.up.said()
        assert fleet.panel_url in said
        assert f"{fleet.data_dir} (new)" in said
        assert "ssh -L" in said
        assert PASSWORD not in said
        running = pids_of(fleet)
        assert len(alive(*running)) == 4
        assert await fleet.up.end(signal.SIGINT) == 0
        assert alive(*running) == []
        assert not (tmp_path / "ready.json").exists()


async def test_a_second_start_keeps_ports_and_password_and_says_what_it_ignored(tmp_path: Path) -> None:
    async with fleet_up(tmp_path) as fleet:
        first = fleet.panel_url, fleet.broker_url, (await fleet.wait_online())["id"]
    async with fleet_up(tmp_path, password="another password", sign_in=False) as again:
        await again.api.sign_in(PASSWORD)
        assert (again.panel_url, again.broker_url, (await again.wait_online())["id"]) == first
        assert "was ignored because this admin exists already" in again.up.said()
        assert "(resumed)" in again.up.said()


async def test_after_kill_9_of_itself_the_next_start_ends_what_was_left_and_keeps_xray(tmp_path: Path) -> None:
    async with fleet_up(tmp_path) as fleet:
        await fleet.wait_online()
        parts, xray = [fleet.pid_of(part) for part in PARTS], fleet.xray_pids()
        fleet.up.child.kill()
        await fleet.up.child.wait()
        assert len(alive(*parts, *xray)) == 4
        (tmp_path / "data" / "run.json").read_text()
        async with fleet_up(tmp_path) as again:
            assert alive(*parts) == []
            await again.wait_online()
            assert again.xray_pids() == xray
            assert "ending what it left" in again.up.said()
        assert alive(*xray) == []


async def test_a_second_start_on_the_same_directory_is_refused_in_one_line(tmp_path: Path) -> None:
    async with fleet_up(tmp_path) as fleet:
        outcome = await up(tmp_path)
        assert_one_line(outcome, "already runs on")
        assert alive(*(fleet.pid_of(part) for part in PARTS))


async def test_a_second_ctrl_c_hurries(tmp_path: Path) -> None:
    async with fleet_up(tmp_path) as fleet:
        await fleet.wait_online()
        os.kill(fleet.pid_of("agent"), signal.SIGSTOP)
        fleet.up.child.send_signal(signal.SIGINT)
        await eventually(lambda: "again to hurry" in fleet.up.said())
        fleet.up.child.send_signal(signal.SIGINT)
        async with asyncio.timeout(12):
            await fleet.up.child.wait()


async def test_public_serves_tls_under_a_random_base_path_and_tells_ports_and_fingerprint(tmp_path: Path) -> None:
    async with fleet_up(tmp_path, "--public", "--panel-port", "0", "--broker-port", "0", sign_in=False) as fleet:
        url, said = httpx.URL(fleet.panel_url), fleet.up.said()
        assert url.scheme == "https"
        assert len(url.path) > 10
        assert "Ports" in said
        await fleet.api.sign_in()
        await fleet.wait_online()
        context = ssl.create_default_context(cafile=fleet.data_dir / "tls" / "ca.crt")
        async with httpx.AsyncClient(verify=context) as stranger:
            assert (await stranger.get(f"https://127.0.0.1:{url.port}/")).status_code == 404
            assert (await stranger.get(f"https://127.0.0.1:{url.port}/login")).status_code == 404
            login = await stranger.get(f"{fleet.panel_url}login")
            assert login.status_code == 200
            assert url.path in login.text
        der = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", url.port)))
        fingerprint = hashlib.sha256(der).hexdigest().upper()
        assert ":".join(fingerprint[at : at + 2] for at in range(0, 64, 2)) in said
        base_path = url.path
    async with fleet_up(tmp_path, "--public", "--panel-port", "0", "--broker-port", "0", sign_in=False) as again:
        assert httpx.URL(again.panel_url).path == base_path


async def test_the_bot_answers_an_admin_with_the_status(tmp_path: Path) -> None:
    async with fake_telegram() as telegram:
        environment = {"XFLEET_BOT_TOKEN": TOKEN, "XFLEET_BOT_API_BASE": telegram.base}
        async with fleet_up(tmp_path, environment=environment) as fleet:
            await fleet.wait_online()
            await telegram.wait_for_call(lambda method: method == "getUpdates", within_s=40)
            assert "not bound" in await telegram.asks(7, "/status")
            code = (await fleet.api.post("bot/codes", {}))["code"]
            assert "<b>admin</b>" in await telegram.asks(7, f"/start {code}")
            status = await telegram.asks(7, "/status")
            assert "local" in status
            assert "online" in status
            assert "not valid" in await telegram.asks(8, f"/start {code}")
        for log in (tmp_path / "data" / "logs").glob("*.log"):
            assert TOKEN not in log.read_text()


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@contextlib.asynccontextmanager
async def stopped_fleet(directory: Path) -> AsyncIterator[Path]:
    """A data directory that was used and stopped in order."""
    async with fleet_up(directory) as fleet:
        await fleet.wait_online()
    yield fleet.data_dir


async def up(directory: Path, *options: str, environment: dict[str, str] | None = None) -> Outcome:
    command = [script("xfleet"), "up", "--data-dir", str(directory / "data"), *options]
    if "--panel-port" not in options:
        command += ["--panel-port", "0"]
    if "--broker-port" not in options:
        command += ["--broker-port", "0"]
    return await run(command, environment=environment, within_s=60)


def assert_one_line(outcome: Outcome, says: str) -> None:
    """One clear line on stderr, exit code not 0, no traceback."""
    assert outcome.code == 2
    assert len(outcome.error_lines) == 1, outcome.err
    assert says in outcome.err
    assert "Traceback" not in outcome.out + outcome.err


async def test_a_busy_port_is_one_clear_line(tmp_path: Path, busy_port: int) -> None:
    assert_one_line(await up(tmp_path, "--panel-port", str(busy_port)), f"panel's port {busy_port} is busy")
    assert_one_line(await up(tmp_path, "--broker-port", str(busy_port)), f"broker's port {busy_port} is busy")


async def test_an_unknown_setting_is_one_clear_line(tmp_path: Path) -> None:
    assert_one_line(await up(tmp_path, environment={"XFLEET_PANELPORT": "1"}), "Unknown setting XFLEET_PANELPORT")
    outcome = await up(tmp_path, environment={"XFLEET_LISTEN": "0.0.0.0"})
    assert_one_line(outcome, "Unknown setting XFLEET_LISTEN")


async def test_a_directory_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    assert_one_line(await up(tmp_path), "Cannot make the directory")


async def test_a_missing_or_broken_key_file_is_one_clear_line_and_nothing_is_left_running(tmp_path: Path) -> None:
    async with stopped_fleet(tmp_path) as data:
        key_file = data / "keys" / "key-file"
        kept = key_file.read_bytes()
        key_file.write_bytes(b"xfleet-key-1 nonsense\n")
        assert_one_line(await up(tmp_path), "is broken")
        key_file.unlink()
        assert_one_line(await up(tmp_path), "is missing")
        key_file.write_bytes(kept)
        key_file.chmod(0o644)
        assert_one_line(await up(tmp_path), "chmod 600")
        key_file.chmod(0o600)
        async with fleet_up(tmp_path) as again:
            await again.wait_online()


async def test_a_broken_certificate_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("no certificate")
    (tmp_path / "k.pem").write_text("no key")
    options = ("--tls-cert", str(tmp_path / "c.pem"), "--tls-key", str(tmp_path / "k.pem"))
    assert_one_line(await up(tmp_path, *options), "--tls-cert and --tls-key")


async def test_what_dies_is_started_again_and_said(tmp_path: Path) -> None:
    async with fleet_up(tmp_path) as fleet:
        await fleet.wait_online()
        before = {part: fleet.pid_of(part) for part in PARTS}
        await fleet.kill(*PARTS)
        for part in PARTS:
            await eventually(lambda part=part: fleet.pid_of(part) not in {0, before[part]}, within_s=20)
        await fleet.wait_online()
        assert "agent was ended by SIGKILL; starting it again" in fleet.up.said()
        assert json.loads((fleet.data_dir / "run.json").read_text()).keys() == set(PARTS)
