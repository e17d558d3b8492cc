"""Reads and orders, from the API over the real broker to an agent that speaks the contract. Server 2 is away."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, update

from harness.broker import eventually
from harness.controller_fleet import SmallAgent, World, api_of, small_agent, stopped_world
from xfleet_contracts.commands import AgentInfo, Command, Reply, XrayConfig, XrayVersion
from xfleet_contracts.errors import ErrorBody
from xfleet_contracts.installs import ChecksumWrong, XrayInstalled
from xfleet_contracts.logs import LogNotAllowed
from xfleet_controller.app import open_controller
from xfleet_controller.audit.models import AuditRow
from xfleet_controller.auth.rights import Actor, Forbidden
from xfleet_controller.orders import service, verbs
from xfleet_controller.tasks.models import ServerTask

pytestmark = [pytest.mark.real_broker, pytest.mark.asyncio(loop_scope="module")]
ARCHIVE = {"url": "https://mirror.example/xray.zip", "sha256": "ab" * 32}
RESTARTED = XrayVersion(version="26.1.1", start_id="x2")
NOTHING = msgspec.json.encode({})


async def restarted(_command: Command) -> XrayVersion:
    return RESTARTED


def refusing(code: str, **details: Any) -> Any:
    async def answer(_command: Command) -> Reply:
        return Reply(ok=False, error=ErrorBody(code=code, message="no\x00\x1b[31m", details=details))

    return answer


async def task_of(world: World, task_id: int) -> ServerTask:
    async with world.controller.context.database.read() as session:
        return await session.get_one(ServerTask, task_id)


async def test_a_read_is_answered_by_the_server(api: Any, agent: SmallAgent) -> None:
    async def info(_command: Command) -> AgentInfo:
        return AgentInfo(sid="local", instance="i1", agent_version="9", xray_version="26.1.1")

    async def config(_command: Command) -> XrayConfig:
        return XrayConfig(config={"inbounds": [{"tag": "a", "settings": {"password": "hush"}}]})

    agent.verbs |= {"info": info, "xray.config": config}
    answer = await api.get("/api/v1/servers/1/info")
    assert (answer.status_code, answer.json()["agent_version"]) == (200, "9")
    shown = (await api.get("/api/v1/servers/1/xray/config")).text
    assert '"tag":"a"' in shown
    assert "hush" not in shown


async def test_a_change_becomes_a_task_with_trace_duration_and_audit(world: World, api: Any, agent: SmallAgent) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
    agent.verbs["xray.restart"] = restarted
    answer = await api.post("/api/v1/servers/1/xray/restart", params={"wait": 10}, headers=headers)
    assert answer.status_code == 202, answer.text
    assert answer.headers["traceparent"].startswith(f"00-{trace_id}-")
    order = answer.json()
    assert (order["task"]["status"], order["task"]["trace_id"], order["online"]) == ("completed", trace_id, True)
    assert order["task"]["took_ms"] is not None
    detail = (await api.get(f"/api/v1/tasks/{order['task_id']}")).json()
    assert detail["response"] == {"version": "26.1.1", "start_id": "x2"}
    assert detail["command_id"] == agent.commands[-1].id
    found = (await api.get("/api/v1/tasks", params={"trace_id": trace_id, "by": "admin"})).json()
    assert [each["id"] for each in found["items"]] == [order["task_id"]]
    assert (await task_of(world, order["task_id"])).order_sealed is None
    async with world.controller.context.database.read() as session:
        row = await session.scalar(select(AuditRow).where(AuditRow.action == "order.xray.restart"))
    assert row is not None
    assert (row.actor, row.object_name, row.trace_id) == ("admin:admin", "local", trace_id)


async def test_the_commands_carry_the_trace_of_the_request(world: World, api: Any, agent: SmallAgent) -> None:
    seen: list[str] = []
    subscription = await agent.link.subscribe("fleet.cmd.local.xray.version", _collect(seen))
    agent.verbs["xray.version"] = restarted
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    await api.get("/api/v1/servers/1/xray", headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-00"})
    await eventually(lambda: seen)
    await agent.link.unsubscribe(subscription)
    assert seen == [trace_id]


def _collect(seen: list[str]) -> Any:
    async def on_message(message: Any) -> None:
        seen.append(message.trace_id)

    return on_message


async def test_what_the_server_refuses_has_its_word_and_a_status(api: Any, agent: SmallAgent) -> None:
    async def not_allowed(_command: Command) -> None:
        raise LogNotAllowed

    async def checksum(_command: Command) -> None:
        raise ChecksumWrong(found="cd" * 32)

    agent.verbs |= {"logs.read": not_allowed, "xray.install": checksum}
    answer = await api.get("/api/v1/servers/1/logs", params={"log": "/etc/shadow"})
    assert (answer.status_code, answer.json()["code"]) == (403, "log_not_allowed")
    body = {"version": "26.2.6", "archive": ARCHIVE}
    failed = (await api.post("/api/v1/servers/1/xray/install", json=body, params={"wait": 10})).json()["task"]
    assert (failed["status"], failed["error"]["code"]) == ("failed", "checksum_wrong")
    assert failed["error"]["details"] == {"found": "cd" * 32}


async def test_nonsense_is_refused_with_its_field_before_anybody_is_asked(api: Any, agent: SmallAgent) -> None:
    cases = [
        ("xray/install", {"version": "latest"}, "version"),
        (
            "xray/install",
            {"version": "1.0", "archive": {"url": "file:///etc/passwd", "sha256": "ab" * 32}},
            "archive.url",
        ),
        ("xray/install", {"version": "1.0", "archive": {"url": "http://[", "sha256": "ab" * 32}}, "archive.url"),
        ("xray/install", {"version": "1.0", "archive": ARCHIVE | {"sha256": "zz"}}, "archive.sha256"),
        ("geofiles", {"files": []}, "files"),
        ("geofiles", {"files": [{"name": "../x.dat", "file": ARCHIVE}]}, "files.0.name"),
        ("certificates", {"domains": ["a b"]}, "domains"),
        ("certificates", {"domains": ["example.com"], "days_count": 0}, "days_count"),
        ("agent/update", {"version": "1.2.3", "wheel": ARCHIVE, "probation_s": -1}, "probation_s"),
        ("checks", {"tls_targets": ["example.com"]}, "tls_targets"),
        ("checks", {"free_ports": [70000]}, "free_ports"),
    ]
    for path, body, field in cases:
        answer = await api.post(f"/api/v1/servers/1/{path}", json=body)
        assert answer.status_code == 422, (path, answer.text)
        assert answer.json()["errors"][0]["field"] == field, answer.text
    answer = await api.get("/api/v1/servers/1/logs", params={"log": "agent", "lines_count": 100_000})
    assert answer.status_code == 422
    assert agent.commands == []
    assert (await api.post("/api/v1/servers/99/xray/start")).status_code == 404


async def test_a_server_that_is_away_says_so_at_once_and_its_orders_wait(world: World, api: Any) -> None:
    answer = await api.get("/api/v1/servers/2/health")
    assert (answer.status_code, answer.json()["code"]) == (503, "agent_offline")
    order = (await api.post("/api/v1/servers/2/xray/restart")).json()
    assert (order["task"]["status"], order["online"], "offline" in order["note"]) == ("pending", False, True)
    again = (await api.post("/api/v1/servers/2/xray/restart")).json()
    assert (again["task_id"], again["joined"]) == (order["task_id"], True)
    other = (await api.post("/api/v1/servers/2/xray/stop")).json()
    assert other["task_id"] != order["task_id"]
    taken_back = await api.post(f"/api/v1/tasks/{other['task_id']}/cancel")
    assert (taken_back.status_code, taken_back.json()["status"]) == (200, "cancelled")
    twice = await api.post(f"/api/v1/tasks/{other['task_id']}/cancel")
    assert (twice.status_code, twice.json()["code"]) == (409, "task_not_pending")
    past = world.controller.context.clock.now() - timedelta(seconds=1)
    async with world.controller.context.database.write() as session:
        await session.execute(update(ServerTask).where(ServerTask.id == order["task_id"]).values(deadline_at=past))
    world.controller.context.order_wake.set()

    async def expired() -> bool:
        task = await task_of(world, order["task_id"])
        return (task.status, (task.error or {}).get("code")) == ("expired", "expired")

    await eventually(expired)


async def test_one_order_at_a_time_in_the_order_given(world: World, api: Any, agent: SmallAgent) -> None:
    gate, running = asyncio.Event(), 0

    async def slowly(_command: Command) -> XrayVersion:
        nonlocal running
        running += 1
        assert running == 1
        await gate.wait()
        running -= 1
        return RESTARTED

    agent.verbs |= dict.fromkeys(("xray.restart", "xray.start"), slowly)
    first = (await api.post("/api/v1/servers/1/xray/restart")).json()["task_id"]
    await eventually(lambda: agent.commands)
    second = (await api.post("/api/v1/servers/1/xray/start")).json()["task_id"]
    third = (await api.post("/api/v1/servers/1/xray/restart")).json()
    assert (third["joined"], third["task_id"] not in {first, second}) == (False, True)
    gate.set()

    async def all_done() -> bool:
        found = [await task_of(world, each) for each in (first, second, third["task_id"])]
        return all(task.status == "completed" for task in found)

    await eventually(all_done)
    assert [each.verb for each in agent.commands] == ["xray.restart", "xray.start", "xray.restart"]


async def test_two_admins_who_order_the_same_at_once_give_one_order(world: World, agent: SmallAgent) -> None:
    gate = asyncio.Event()

    async def slowly(_command: Command) -> XrayVersion:
        await gate.wait()
        return RESTARTED

    agent.verbs |= dict.fromkeys(("xray.restart", "xray.start"), slowly)
    context = world.controller.context
    alice, bob = (Actor(name=name, role="operator", admin_id=number) for number, name in enumerate(("a", "b"), 7))
    nothing = verbs.XRAY_START.body()
    await service.order(context, alice, 1, verbs.XRAY_START, nothing)
    await eventually(lambda: agent.commands)
    given = await asyncio.gather(
        *(service.order(context, who, 1, verbs.XRAY_RESTART, nothing) for who in (alice, bob) * 3)
    )
    gate.set()
    assert len({each.task.id for each in given}) == 1
    assert sorted(each.joined for each in given) == [False] + [True] * 5
    support = Actor(name="s", role="support", admin_id=9)
    with pytest.raises(Forbidden):
        await service.order(context, support, 1, verbs.XRAY_RESTART, nothing)
    await eventually(lambda: len(agent.commands) == 2)


async def test_the_same_id_is_the_same_order(api: Any, agent: SmallAgent) -> None:
    agent.verbs["xray.restart"] = restarted
    params = {"order_id": "mine-1", "wait": 10}
    first = (await api.post("/api/v1/servers/1/xray/restart", params=params)).json()
    again = (await api.post("/api/v1/servers/1/xray/restart", params=params)).json()
    assert (first["task_id"], again["joined"]) == (again["task_id"], True)
    other = await api.post("/api/v1/servers/1/xray/start", params=params)
    assert (other.status_code, other.json()["code"]) == (409, "reused_id")
    assert len(agent.commands) == 1


async def test_each_admin_has_a_limit_at_each_server(world: World, api: Any, agent: SmallAgent) -> None:
    body = {"version": "26.2.6", "archive": ARCHIVE}

    async def installed(_command: Command) -> XrayInstalled:
        return XrayInstalled(version="26.2.6", previous="26.1.1")

    agent.verbs["xray.install"] = installed
    answers = [await api.post("/api/v1/servers/1/xray/install", json=body) for _ in range(6)]
    assert [each.status_code for each in answers] == [202] * 5 + [429]
    assert answers[-1].json()["code"] == "rate_limited"
    assert 0 < int(answers[-1].headers["retry-after"]) <= 61
    assert (await api.post("/api/v1/servers/2/xray/install", json=body)).status_code == 202
    other = Actor(name="other", role="owner", admin_id=77)
    given = await service.order_by_name(world.controller.context, other, 1, "xray.install", body)
    assert given.task.verb == "xray.install"


async def test_an_outcome_that_is_unknown_is_asked_for_again_under_the_same_id(
    world: World, api: Any, agent: SmallAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xfleet_contracts import commands

    monkeypatch.setitem(commands.TIMEOUT_S, "xray.restart", 0.3)
    times = 0

    async def late(_command: Command) -> XrayVersion | None:
        nonlocal times
        times += 1
        return None if times == 1 else RESTARTED

    agent.verbs["xray.restart"] = late
    task_id = (await api.post("/api/v1/servers/1/xray/restart")).json()["task_id"]

    async def done() -> bool:
        await agent.beat()
        return (await task_of(world, task_id)).status == "completed"

    await eventually(done, every_s=0.2)
    assert len({each.id for each in agent.commands}) == 1
    assert (await task_of(world, task_id)).retry_count == 1


async def test_an_order_that_may_be_done_is_not_taken_back_or_joined_when_the_server_puts_it_off(
    world: World, api: Any, agent: SmallAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xfleet_contracts import commands

    monkeypatch.setitem(commands.TIMEOUT_S, "xray.restart", 0.3)

    async def silent_then_busy(command: Command) -> Reply | None:
        return await refusing(commands.RATE_LIMITED)(command) if len(agent.commands) > 1 else None

    agent.verbs["xray.restart"] = silent_then_busy
    task_id = (await api.post("/api/v1/servers/1/xray/restart")).json()["task_id"]

    async def is_put_off() -> bool:
        await agent.beat()
        task = await task_of(world, task_id)
        return task.retry_count > 0 and task.lease_until_at is None

    await eventually(is_put_off, every_s=0.2)
    assert (await task_of(world, task_id)).status == "running"
    cancelled = await api.post(f"/api/v1/tasks/{task_id}/cancel")
    assert (cancelled.status_code, cancelled.json()["code"]) == (409, "task_not_pending")
    again = (await api.post("/api/v1/servers/1/xray/restart")).json()
    assert (again["joined"], again["task_id"] != task_id) == (False, True)
    agent.verbs["xray.restart"] = restarted

    async def both_are_done() -> bool:
        await agent.beat()
        return {(await task_of(world, each)).status for each in (task_id, again["task_id"])} == {"completed"}

    await eventually(both_are_done, every_s=0.2)


async def test_a_hostile_answer_ends_the_order_and_harms_nothing(world: World, api: Any, agent: SmallAgent) -> None:
    deep: Any = "x"
    for _ in range(400):
        deep = [deep]
    answers: list[Any] = [
        b"\xff\xfe",
        b'{"ok": true, "data": {"version": 5}}',
        b'{"ok": true, "data": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"ok": true, "data": {"version": "' + b"x" * 230_000 + b'\\u0000"}}',
        b"x" * 250_000,
        msgspec.json.encode(
            Reply(ok=False, error=ErrorBody(code="<script>", message="\0" * 9000, details={"a": deep}))
        ),
        msgspec.json.encode(
            Reply(
                ok=False, error=ErrorBody(code="evil", message="no", details={"retry_after_s": "1\r\nx: y", "n": 2**70})
            )
        ),
    ]
    expected = ["bad_answer", "bad_answer", "bad_answer", "", "bad_answer", "bad_answer", "evil"]
    for answer, code in zip(answers, expected, strict=True):

        async def hostile(_command: Command, answer: bytes = answer) -> bytes:
            return answer

        agent.verbs["xray.restart"] = hostile
        given = await api.post("/api/v1/servers/1/xray/restart", params={"wait": 10})
        task = given.json()["task"]
        assert (task["status"], (task["error"] or {}).get("code", "")) == ("failed" if code else "completed", code)
        assert "\0" not in given.text
        assert len((await api.get(f"/api/v1/tasks/{task['id']}")).content) < 100_000
    agent.verbs["xray.version"] = refusing("evil", retry_after_s="1\r\nx: y", field="f")
    read = await api.get("/api/v1/servers/1/xray")
    assert (read.status_code, read.json()["code"]) == (409, "evil")
    assert "retry-after" not in read.headers


async def test_an_order_running_when_the_controller_dies_is_resumed_under_the_same_id(tmp_path: Path) -> None:
    ids: list[str] = []

    async def once(command: Command) -> XrayVersion | None:
        ids.append(command.id)
        return None if len(ids) == 1 else RESTARTED

    async with AsyncExitStack() as stack:
        dying = AsyncExitStack()
        world = await stack.enter_async_context(stopped_world(tmp_path / "data"))
        world.controller = await dying.enter_async_context(open_controller(world.settings))
        agent = await stack.enter_async_context(small_agent(world))
        agent.verbs["xray.restart"] = once
        async with api_of(world) as api:
            task_id = (await api.post("/api/v1/servers/1/xray/restart")).json()["task_id"]
        await eventually(lambda: ids)
        await dying.aclose()
        world.controller = await stack.enter_async_context(open_controller(world.settings))
        left = await task_of(world, task_id)
        assert (left.status, left.lease_owner != "") == ("running", True)

        async def done() -> bool:
            await agent.beat()
            return (await task_of(world, task_id)).status == "completed"

        await eventually(done, every_s=0.2)
    assert (len(ids), len(set(ids))) == (2, 1)
