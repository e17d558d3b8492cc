"""The operator's verbs as a person types them, on a real broker with a whole controller and an agent by contract."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.controller_fleet import SmallAgent, World, api_of, beating, running_world, small_agent
from harness.process import Outcome, run, script
from xfleet_contracts.commands import Reply, XrayVersion
from xfleet_controller.init import make_cli_credentials
from xfleet_controller.outbox import note_event

pytestmark = [pytest.mark.real_broker, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with running_world(tmp_path_factory.mktemp("cli") / "data") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent(world: World) -> AsyncIterator[SmallAgent]:
    async with small_agent(world) as running:
        await beating(running, lambda: running.point.revision > 0)
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def credentials(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("credentials") / "cli.json"
    return await make_cli_credentials(world.settings, path, "admin", (world.broker.url,))


async def xfleet(credentials: Path, *arguments: str) -> Outcome:
    """Runs the console script with these credentials."""
    return await run([script("xfleet"), *arguments, "--credentials", str(credentials)])


async def test_ps_shows_every_server(world: World, agent: SmallAgent, credentials: Path) -> None:
    assert world.controller.context.presence.is_online(agent.sid)
    said = await xfleet(credentials, "ps", "--json")
    assert said.code == 0, said.err
    (line,) = [json.loads(text) for text in said.out.splitlines()]
    assert (line["slug"], line["status"], line["mode"]) == ("local", "online", "active")
    shown = await xfleet(credentials, "ps")
    assert shown.out.startswith("SERVER")
    assert "running 26.1.1" in shown.out
    assert "\x1b" not in shown.out


async def test_drain_and_back(world: World, agent: SmallAgent, credentials: Path) -> None:
    assert agent.sid == "local"
    assert (await xfleet(credentials, "drain", "local")).out == "local: mode is drain\n"
    async with api_of(world) as api:
        assert (await api.get("/api/v1/servers/1")).json()["mode"] == "drain"
    assert (await xfleet(credentials, "drain", "local", "--undo")).code == 0
    unknown = await xfleet(credentials, "drain", "nowhere")
    assert (unknown.code, unknown.err) == (1, "xfleet: There is no such server. (server_unknown)\n")


async def test_an_order_becomes_a_task_and_its_end_is_the_exit_code(agent: SmallAgent, credentials: Path) -> None:
    async def restart(_command: Any) -> Any:
        return XrayVersion(version="26.1.1", start_id="x2")

    async def refuse(_command: Any) -> Any:
        return Reply(ok=False, error=None)

    agent.verbs |= {"xray.restart": restart, "xray.stop": refuse}
    done = await xfleet(credentials, "order", "local", "xray.restart", "--wait", "--json")
    assert done.code == 0, done
    task = json.loads(done.out)
    assert (task["operation"], task["status"], task["server"]) == ("xray.restart", "completed", "local")
    assert task["response"]["version"] == "26.1.1"
    assert (await xfleet(credentials, "order", "local", "xray.stop", "--wait")).code == 3
    listed = await xfleet(credentials, "task", "--server", "local", "--json")
    assert [json.loads(text)["operation"] for text in listed.out.splitlines()][:2] == ["xray.stop", "xray.restart"]
    shown = await xfleet(credentials, "task", str(task["id"]))
    assert "completed" in shown.out
    for arguments, code, word in (
        (("order", "local", "xray.explode"), 1, "unknown_verb"),
        (("order", "local", "xray.restart", "--body", "["), 2, "--body"),
        (("task", "999999"), 1, "not_found"),
    ):
        said = await xfleet(credentials, *arguments)
        assert (said.code, said.out) == (code, ""), arguments
        assert word in said.err
        assert said.err.count("\n") == 1


async def test_diff_says_that_nothing_is_different(agent: SmallAgent, credentials: Path) -> None:
    await agent.beat()
    said = await xfleet(credentials, "diff", "local")
    assert said.code == 0, said.err
    assert "Nothing is different." in said.out


async def test_tail_prints_events_that_cannot_move_the_cursor(world: World, credentials: Path) -> None:
    async def publish() -> None:
        context = world.controller.context
        while True:
            async with context.database.write() as session:
                note_event(
                    session, "server_online", context.clock.now(), server="local", subject="evil\x1b[2J\u202ename"
                )
            await asyncio.sleep(0.2)

    publishing = asyncio.create_task(publish())
    try:
        said = await xfleet(credentials, "tail", "--count", "1")
    finally:
        publishing.cancel()
    assert said.code == 0
    assert "evil\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}name" in said.out
    assert "\x1b" not in said.out


async def test_nats_context_works_and_can_only_look(world: World, credentials: Path, tmp_path: Path) -> None:
    said = await xfleet(credentials, "nats-context", "--directory", str(tmp_path / "context"))
    assert said.code == 0, said.err
    context = json.loads((tmp_path / "context" / "xfleet.json").read_text())
    assert context["url"].startswith(f"tls://broker.{world.made.fleet_id}.xfleet:")
    for name in ("creds", "ca", "cert", "key"):
        assert Path(context[name]).stat().st_mode & 0o777 == 0o600
    creds = Path(context["creds"]).read_text()
    assert "BEGIN NATS USER JWT" in creds
    assert "BEGIN USER NKEY SEED" in creds
    bad = await xfleet(credentials, "nats-context", "--name", "../x")
    assert bad.code == 2


async def test_without_a_controller_ps_listens_to_the_servers(
    world: World, agent: SmallAgent, credentials: Path
) -> None:
    """The desk is silenced; beats go on."""
    desk = world.controller.bus.svc
    await desk.close()

    async def beats() -> None:
        while True:
            await agent.beat()
            await asyncio.sleep(0.2)

    beating_on = asyncio.create_task(beats())
    try:
        said = await xfleet(credentials, "ps", "--json", "--listen-s", "1.5")
        away = await xfleet(credentials, "task")
    finally:
        beating_on.cancel()
    assert said.code == 0, said.err
    assert "No controller answers" in said.err
    assert json.loads(said.out)["slug"] == "local"
    assert (away.code, "(controller_away)" in away.err) == (1, True)
