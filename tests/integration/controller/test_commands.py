"""`xfleet-controller` as a person meets it: what it says when it cannot start, and that it stops in order."""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from pathlib import Path

import httpx
import pytest

from harness.broker import eventually
from xfleet_nats.process import BrokerProcess
from xfleet_nats.render import BrokerSettings

PROGRAM = str(Path(sys.executable).with_name("xfleet-controller"))


async def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code and what it said."""
    child = await asyncio.create_subprocess_exec(
        PROGRAM,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    out, err = await asyncio.wait_for(child.communicate(), 60)
    return child.returncode or 0, out.decode(), err.decode()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An initialized data directory, to be copied."""
    data_dir = tmp_path_factory.mktemp("made") / "data"
    code, out, err = asyncio.run(run("init", "--data-dir", str(data_dir), "--broker-port", "0"))
    assert code == 0, err
    assert len(json.loads(out.splitlines()[-1])["admin_password"]) >= 16
    return data_dir


@pytest.fixture
def data_dir(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "data")
    return tmp_path / "data"


def is_one_clear_line(code: int, err: str, *words: str) -> None:
    lines = [line for line in err.splitlines() if line.startswith("xfleet: ")]
    assert code != 0
    assert len(lines) == 1, err
    assert "Traceback" not in err
    for word in words:
        assert word in lines[0]


async def test_an_unknown_setting_is_refused(data_dir: Path) -> None:
    code, _, err = await run("run", "--data-dir", str(data_dir), XFLEET_PROT="1")
    is_one_clear_line(code, err, "XFLEET_PROT", "Known")


async def test_a_busy_port_is_said(data_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, _, err = await run("run", "--data-dir", str(data_dir), "--port", port)
    is_one_clear_line(code, err, port, "in use", "--port")


async def test_a_missing_and_a_broken_key_file_are_said(data_dir: Path) -> None:
    key_file = data_dir / "keys" / "key-file"
    key_file.chmod(0o644)
    code, _, err = await run("run", "--data-dir", str(data_dir), "--port", "0")
    is_one_clear_line(code, err, "chmod 600")
    key_file.write_text("nonsense")
    key_file.chmod(0o600)
    code, _, err = await run("run", "--data-dir", str(data_dir), "--port", "0")
    is_one_clear_line(code, err, "broken", "backup")
    key_file.unlink()
    code, _, err = await run("run", "--data-dir", str(data_dir), "--port", "0")
    is_one_clear_line(code, err, "missing", "backup")


async def test_a_foreign_key_file_is_said(data_dir: Path, tmp_path: Path) -> None:
    await run("init", "--data-dir", str(tmp_path / "other"), "--broker-port", "0")
    shutil.copy2(tmp_path / "other" / "keys" / "key-file", data_dir / "keys" / "key-file")
    code, _, err = await run("run", "--data-dir", str(data_dir), "--port", "0")
    is_one_clear_line(code, err, "another key")


async def test_nothing_initialized_is_said(tmp_path: Path) -> None:
    code, _, err = await run("run", "--data-dir", str(tmp_path / "new"), "--port", "0")
    is_one_clear_line(code, err, "init")


async def test_a_public_address_over_plain_http_is_refused(data_dir: Path) -> None:
    code, _, err = await run("run", "--data-dir", str(data_dir), "--listen", "0.0.0.0", "--port", "0")
    is_one_clear_line(code, err, "plain HTTP", "--behind-proxy")
    code, _, err = await run("run", "--data-dir", str(data_dir), "--port", "0", "--behind-proxy", "not a cidr")
    is_one_clear_line(code, err, "--behind-proxy")
    code, _, err = await run("run", "--data-dir", str(data_dir), "--port", "0", "--tls-cert", "/nowhere")
    is_one_clear_line(code, err, "--tls-key")


async def test_an_unreachable_broker_is_said(data_dir: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"tls://127.0.0.1:{closed.getsockname()[1]}"
        code, _, err = await run("run", "--data-dir", str(data_dir), "--port", "0", "--broker-url", url)
    is_one_clear_line(code, err, url, "--broker-url")


async def test_a_weak_first_password_is_refused(tmp_path: Path) -> None:
    code, _, err = await run("init", "--data-dir", str(tmp_path / "d"), XFLEET_ADMIN_PASSWORD="short")
    is_one_clear_line(code, err, "XFLEET_ADMIN_PASSWORD")


async def test_an_unreachable_database_is_said(data_dir: Path) -> None:
    url = "postgresql+psycopg://nobody@127.0.0.1:1/x"
    code, _, err = await run("run", "--data-dir", str(data_dir), "--port", "0", "--database-url", url)
    is_one_clear_line(code, err, "database")


@pytest.mark.real_broker
async def test_it_serves_alone_and_stops_in_order(made: Path) -> None:
    data_dir = made
    broker = BrokerProcess(BrokerSettings(directory=data_dir / "broker", port=0))
    await broker.start()
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    arguments = ("run", "--data-dir", str(data_dir), "--port", str(port), "--broker-url", broker.url)
    child = await asyncio.create_subprocess_exec(PROGRAM, *arguments, stderr=asyncio.subprocess.PIPE)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

            async def ready() -> bool:
                try:
                    return (await client.get("/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(ready, within_s=30)
            code, _, err = await run(*arguments[:4], "0", *arguments[5:])
            is_one_clear_line(code, err, "already runs")
            missing = await client.get("/api/v1/nothing")
            assert (missing.status_code, "server" in missing.headers) == (404, False)
        child.send_signal(signal.SIGTERM)
        _, err_bytes = await asyncio.wait_for(child.communicate(), 15)
        assert child.returncode == 0, err_bytes.decode()
        assert b"Traceback" not in err_bytes
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
        await broker.stop()
