"""Upgrades in waves, over the real broker with agents that speak the contract."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.broker import eventually
from harness.controller_fleet import World, api_of, small_agent, stopped_world
from harness.orders import LivelyAgent, lively_agent, wheel_order
from xfleet_controller.app import open_controller

pytestmark = [pytest.mark.real_broker, pytest.mark.asyncio(loop_scope="module")]
NAMES = ("one", "two", "three")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(world: World) -> AsyncIterator[dict[str, LivelyAgent]]:
    async with AsyncExitStack() as stack:
        agents = {name: await stack.enter_async_context(lively_agent(world, name)) for name in NAMES}
        await eventually(lambda: all(world.controller.context.presence.is_online(name) for name in NAMES))
        yield agents


@pytest_asyncio.fixture(loop_scope="module")
async def start(api: Any, fleet: dict[str, LivelyAgent]) -> AsyncIterator[Any]:
    """Starts a rollout over all lively agents; cancels it after the test."""
    started: list[int] = []
    for agent in fleet.values():
        agent.version, agent.crashes, agent.beats = "1.0.0", False, True
        agent.updates.clear()

    async def begin(**more: Any) -> dict[str, Any]:
        ids = [agent.server_id for agent in fleet.values()]
        body = {"verb": "agent.update", "body": wheel_order(), "server_ids": ids, "waves": ["1", "rest"], "watch_s": 1}
        answer = await api.post("/api/v1/rollouts", json=body | more)
        assert answer.status_code == 201, answer.text
        started.append(answer.json()["id"])
        return answer.json()

    yield begin
    for each in started:
        await api.post(f"/api/v1/rollouts/{each}/cancel")


async def shown(api: Any, rollout: dict[str, Any]) -> dict[str, Any]:
    return (await api.get(f"/api/v1/rollouts/{rollout['id']}")).json()


def states(rollout: dict[str, Any]) -> list[str]:
    return [each["status"] for each in rollout["servers"]]


async def test_waves_follow_each_other_once_the_one_before_is_well(
    api: Any, fleet: dict[str, LivelyAgent], start: Any
) -> None:
    rollout = await start(watch_s=2)

    async def first_is_watched() -> bool:
        return states(await shown(api, rollout)) == ["watching", "waiting", "waiting"]

    await eventually(first_is_watched)
    assert [len(agent.updates) for agent in fleet.values()] == [1, 0, 0]
    second = await api.post("/api/v1/rollouts", json={"verb": "agent.update", "body": wheel_order()})
    assert (second.status_code, second.json()["code"]) == (409, "rollout_active")

    async def completed() -> bool:
        return (await shown(api, rollout))["status"] == "completed"

    await eventually(completed, within_s=50, every_s=0.2)
    assert [agent.updates for agent in fleet.values()] == [["2.0.0"]] * 3
    done = await shown(api, rollout)
    assert (states(done), done["servers"][0]["version_before"]) == (["healthy"] * 3, "1.0.0")
    found = (await api.get("/api/v1/tasks", params={"trace_id": done["trace_id"]})).json()
    assert {each["verb"] for each in found["items"]} == {"agent.update"}
    assert found["total"] == 3


async def test_a_crash_after_the_upgrade_pauses_before_anybody_else_is_touched(
    api: Any, fleet: dict[str, LivelyAgent], start: Any
) -> None:
    rollout = await start(watch_s=60)
    await eventually(lambda: fleet["one"].updates)
    await eventually(lambda: states_are(api, rollout, ["watching", "waiting", "waiting"]))
    fleet["one"].restarts_count += 1

    async def paused() -> bool:
        return (await shown(api, rollout))["status"] == "paused"

    await eventually(paused, within_s=30)
    found = await shown(api, rollout)
    assert (states(found)[0], "crashed" in found["error"], "one" in found["error"]) == ("failed", True, True)
    assert [len(agent.updates) for agent in fleet.values()] == [1, 0, 0]
    resumed = await api.post(f"/api/v1/rollouts/{rollout['id']}/resume")
    assert (resumed.status_code, states(resumed.json())) == (200, ["waiting"] * 3)
    await eventually(lambda: len(fleet["one"].updates) == 2)
    cancelled = await api.post(f"/api/v1/rollouts/{rollout['id']}/cancel")
    assert (cancelled.json()["status"], states(cancelled.json())[1:]) == ("cancelled", ["skipped"] * 2)
    again = await api.post(f"/api/v1/rollouts/{rollout['id']}/resume")
    assert (again.status_code, again.json()["code"]) == (409, "rollout_over")


async def states_are(api: Any, rollout: dict[str, Any], wanted: list[str]) -> bool:
    return states(await shown(api, rollout)) == wanted


async def test_a_server_that_refuses_or_is_away_is_told(
    world: World, api: Any, fleet: dict[str, LivelyAgent], start: Any
) -> None:
    async def refuse(_command: Any) -> None:
        from xfleet_contracts.installs import InstallRefused

        raise InstallRefused

    fleet["two"].agent.verbs["agent.update"] = refuse
    rollout = await start(server_ids=[2, fleet["two"].server_id, fleet["three"].server_id], waves=["2", "rest"])

    async def paused() -> bool:
        return (await shown(api, rollout))["status"] == "paused"

    await eventually(paused, within_s=30)
    fleet["two"].agent.verbs["agent.update"] = fleet["two"].update
    found = {each["name"]: (each["status"], each["error"]) for each in (await shown(api, rollout))["servers"]}
    assert found["away"] == ("skipped", "It was offline when its turn came.")
    assert (found["two"][0], found["three"][0]) == ("failed", "waiting")
    assert "does not work on this server" in found["two"][1]
    assert world.controller.context.presence.is_online("two")


async def test_a_server_in_maintenance_or_disabled_is_left_out(
    api: Any, fleet: dict[str, LivelyAgent], start: Any
) -> None:
    one, two = (f"/api/v1/servers/{fleet[name].server_id}" for name in ("one", "two"))
    for url, values in ((one, {"mode": "maintenance"}), (two, {"enabled": False})):
        changed = await api.patch(url, json=values)
        assert changed.status_code == 200, changed.text
    try:
        rollout = await start(server_ids=[fleet["one"].server_id, fleet["two"].server_id])

        async def completed() -> bool:
            return (await shown(api, rollout))["status"] == "completed"

        await eventually(completed, within_s=20, every_s=0.2)
    finally:
        await api.patch(one, json={"mode": "active"})
        await api.patch(two, json={"enabled": True})
    found = {each["name"]: (each["status"], each["error"]) for each in (await shown(api, rollout))["servers"]}
    assert found["one"] == ("skipped", "It was in maintenance when its turn came.")
    assert found["two"] == ("skipped", "It was disabled when its turn came.")
    assert [len(agent.updates) for agent in fleet.values()] == [0, 0, 0]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"verb": "xray.stop", "body": {}}, "verb"),
        ({"body": {"version": 5}}, "body"),
        ({"body": wheel_order("nonsense version")}, "version"),
        ({"waves": ["half"]}, "waves"),
        ({"watch_s": 0}, "watch_s"),
        ({"tag": "no-such-tag", "server_ids": []}, "server_ids"),
    ],
    ids=["verb", "body", "version", "waves", "watch", "tag"],
)
async def test_nonsense_is_refused_with_its_field(api: Any, wrong: dict[str, Any], field: str) -> None:
    answer = await api.post("/api/v1/rollouts", json={"verb": "agent.update", "body": wheel_order()} | wrong)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == field


async def test_a_rollout_goes_on_after_the_controller_was_killed(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        dying = AsyncExitStack()
        world = await stack.enter_async_context(stopped_world(tmp_path / "data"))
        world.controller = await dying.enter_async_context(open_controller(world.settings))
        lively = LivelyAgent(await stack.enter_async_context(small_agent(world)), 1)
        lively.agent.verbs["agent.update"] = lively.update
        await lively.beat()
        await eventually(lambda: world.controller.context.presence.is_online("local"))
        async with api_of(world) as api:
            body = {"verb": "agent.update", "body": wheel_order(), "watch_s": 1}
            rollout = (await api.post("/api/v1/rollouts", json=body)).json()
            await eventually(lambda: lively.updates)
        await dying.aclose()
        world.controller = await stack.enter_async_context(open_controller(world.settings))
        async with api_of(world) as api:

            async def completed() -> bool:
                await lively.beat()
                return (await shown(api, rollout))["status"] == "completed"

            await eventually(completed, within_s=50, every_s=0.6)
            assert states(await shown(api, rollout)) == ["healthy"]
    assert lively.updates == ["2.0.0"]
