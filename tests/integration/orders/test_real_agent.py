"""Every order through the controller's API to a real agent that drives a real Xray."""

import hashlib
import io
import shutil
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from harness.agent import AgentProcess, run_directory, stop
from harness.broker import eventually, free_ports
from harness.controller_fleet import World, api_of, running_world
from harness.releases import Mirror
from xfleet_contracts.enrollment import EnrollmentToken
from xfleet_controller.orders.verbs import ORDERS

pytestmark = [pytest.mark.real_broker, pytest.mark.real_xray, pytest.mark.asyncio(loop_scope="module")]
URL = "/api/v1/servers/1"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    (port,) = free_ports(1)
    data_dir = tmp_path_factory.mktemp("real") / "data"
    async with running_world(data_dir, broker_port=port, heartbeat_interval_s=2.0) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real(world: World) -> AsyncIterator[AgentProcess]:
    with tempfile.TemporaryDirectory(prefix="xo-", ignore_cleanup_errors=True) as name:
        state_dir, token_file = Path(name, "state"), Path(name, "token")
        token_file.write_text(_line(world.token()))
        token_file.chmod(0o600)
        agent = AgentProcess(state_dir)
        await agent.start("--token-file", str(token_file))
        try:
            await eventually(lambda: _xray_runs(world), within_s=15)
            yield agent
        finally:
            await agent.end()
            for xray in agent.xrays():
                await stop(xray)
            sys.stderr.write(agent.log())
            shutil.rmtree(run_directory(state_dir), ignore_errors=True)


def _line(token: EnrollmentToken) -> str:
    import base64

    return base64.urlsafe_b64encode(msgspec.json.encode(token)).decode().rstrip("=")


def _xray_runs(world: World) -> bool:
    seen = world.controller.context.presence.get("local")
    return seen is not None and seen.beat.xray.status == "running"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(world: World) -> AsyncIterator[Any]:
    async with api_of(world) as client:
        client.timeout = 60
        yield client


async def done(api: Any, path: str, body: Any = None) -> dict[str, Any]:
    """The answer of a change, once it is done."""
    answer = await api.post(f"{URL}/{path}", json=body, params={"wait": 25})
    assert answer.status_code == 202, answer.text
    task = answer.json()["task"]
    assert task["status"] == "completed", task
    return (await api.get(f"/api/v1/tasks/{task['id']}")).json()["response"]


async def checked(api: Any, body: Any) -> set[str]:
    """What was looked at."""
    answer = await api.post(f"{URL}/checks", json=body)
    assert answer.status_code == 200, answer.text
    return {each["name"] for each in answer.json()["results"]}


async def test_everything_that_is_read_can_be_read(api: Any, real: AgentProcess) -> None:
    paths = ("info", "health", "stats", "online", "counters", "state", "xray", "xray/config", "certificates", "logs")
    for path in paths:
        answer = await api.get(f"{URL}/{path}")
        assert answer.status_code == 200, (path, answer.text)
    assert {"xray", "disk"} <= await checked(api, {})
    assert await checked(api, {"free_ports": [1]}) == {"port 1"}
    refused = await api.get(f"{URL}/logs", params={"log": "/etc/passwd"})
    assert (refused.status_code, refused.json()["code"]) == (403, "log_not_allowed")
    unknown = await api.get(f"{URL}/certificates/nothing")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "certificate_unknown")
    assert real.xrays()


async def test_changes_are_carried_out(api: Any, world: World, real: AgentProcess) -> None:
    before = (await api.get(f"{URL}/xray")).json()
    after = await done(api, "xray/restart")
    assert after["start_id"] != before["start_id"]
    await done(api, "xray/stop")
    await eventually(lambda: not _xray_runs(world))
    await done(api, "xray/start")
    await eventually(lambda: _xray_runs(world))
    made = await done(api, "certificates", {"domains": ["vpn.example.com"], "days_count": 30})
    assert (made["domains"], made["self_signed"]) == (["vpn.example.com"], True)
    shown = await api.get(f"{URL}/certificates/{made['name']}")
    assert "BEGIN CERTIFICATE" in shown.json()["certificate_pem"]
    assert "PRIVATE" not in shown.text
    async with Mirror.running() as mirror:
        geo = mirror.offer(b"geo data " * 100)
        file = {"name": "custom.dat", "file": msgspec.to_builtins(geo)}
        assert (await done(api, "geofiles", {"files": [file]}))["changed"] == ["custom.dat"]
    assert real.xrays()
    assert len(ORDERS) == 7


async def test_a_backup_comes_back_as_an_archive_and_can_be_put_back(api: Any, real: AgentProcess) -> None:
    assert real.pid
    answer = await api.post(f"{URL}/backup")
    assert answer.status_code == 200, answer.text
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        names = archive.getnames()
    assert any("vpn.example.com" in name for name in names), names
    restored = await api.post(f"{URL}/restore", content=answer.content)
    assert restored.status_code == 200, restored.text
    assert restored.json()["certificates"]
    broken = await api.post(f"{URL}/restore", content=hashlib.sha256(b"x").digest() * 1000)
    assert broken.status_code in {409, 422}, broken.text


async def test_a_rollout_installs_an_xray_and_one_that_does_not_run_pauses_it(
    api: Any, world: World, real: AgentProcess
) -> None:
    async with Mirror.running() as mirror:
        good = msgspec.to_builtins(mirror.xray("99.1.0"))
        rollout = await _rolled_out(api, good)
        assert (rollout["status"], rollout["servers"][0]["status"]) == ("completed", "healthy"), rollout
        seen = world.controller.context.presence.get("local")
        assert seen is not None
        assert seen.beat.xray.version == "99.1.0"
        bad = msgspec.to_builtins(mirror.xray("99.2.0"))
        bad["archive"]["sha256"] = "0" * 64
        paused = await _rolled_out(api, bad)
        assert (paused["status"], "SHA-256" in paused["error"]) == ("paused", True), paused
        await api.post(f"/api/v1/rollouts/{paused['id']}/cancel")
    assert real.xrays()


async def _rolled_out(api: Any, body: Any) -> dict[str, Any]:
    """A rollout that came to its end, or to a halt."""
    answer = await api.post("/api/v1/rollouts", json={"verb": "xray.install", "body": body, "watch_s": 1})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = {}

    async def ended() -> bool:
        found.update((await api.get(f"/api/v1/rollouts/{answer.json()['id']}")).json())
        return found["status"] != "running"

    await eventually(ended, within_s=60, every_s=0.2)
    return found
