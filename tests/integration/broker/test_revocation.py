"""The kill switch: a revoked key is cut at once, everywhere, and stays out."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from nats.errors import Error as NatsError

from harness.broker import FleetBroker, attacker, eventually, running_broker
from xfleet_nats.roles import ROLES
from xfleet_nats.system import (
    NodeWatch,
    count_nodes,
    held_accounts,
    kick,
    list_connections,
    push_account,
    push_state,
)
from xfleet_runtime.broker import Credentials, Disconnected
from xfleet_runtime.keys.jwt import SubjectRights
from xfleet_runtime.keys.nkeys import KeyPair

pytestmark = pytest.mark.real_broker


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[FleetBroker]:
    async with running_broker(tmp_path) as running:
        yield running


def nkey(credentials: Credentials) -> str:
    return KeyPair.from_seed(credentials.seed).public


async def test_a_revoked_connection_is_cut_within_a_second_and_stays_out(fleet: FleetBroker) -> None:
    bad, good = fleet.credentials("agent", "srv1"), fleet.credentials("agent", "srv2")
    async with fleet.link("sys", "controller") as system, attacker(bad) as revoked, attacker(good) as neighbour:
        await system.wait_connected(5)
        started = time.monotonic()
        push = await push_account(system, fleet.issuer, {nkey(bad): int(time.time())}, serial=1)
        await asyncio.wait_for(revoked.closed.wait(), 1)
        assert time.monotonic() - started < 1
        assert push.nodes == ("n1",)
        assert push.refused == {}
        with pytest.raises((NatsError, OSError)):
            async with attacker(bad):
                pass
        assert await neighbour.may_publish("fleet.up.srv2.hb")
        assert neighbour.client.is_connected


async def test_a_revoked_agent_s_link_keeps_trying_and_knows_that_it_is_not_wanted(fleet: FleetBroker) -> None:
    async with fleet.link("sys", "controller") as system, fleet.link("agent", "srv1") as agent:
        await system.wait_connected(5)
        await agent.wait_connected(5)
        await push_account(system, fleet.issuer, {nkey(agent.credentials): int(time.time())}, serial=1)
        await eventually(lambda: not agent.connected)
        await eventually(lambda: agent.refused)
        with pytest.raises(Disconnected):
            await agent.publish("fleet.up.srv1.hb", b"")
        await agent.replace_credentials(fleet.credentials("agent", "srv1"))
        await agent.wait_connected(5)


async def test_revocations_the_nodes_hold_are_never_lost_by_a_push_that_does_not_know_them(fleet: FleetBroker) -> None:
    first, second = fleet.credentials("agent", "srv1"), fleet.credentials("agent", "srv2")
    async with fleet.link("sys", "controller") as system:
        await system.wait_connected(5)
        now = int(time.time())
        one = await push_account(system, fleet.issuer, {nkey(first): now}, serial=1)
        two = await push_account(system, fleet.issuer, {nkey(second): now}, serial=1)
        (held,) = await held_accounts(system, fleet.keys.fleet_account)
        assert held == two.state
        assert set(held.revocations) == {nkey(first), nkey(second)}
        assert two.state.serial > one.state.serial
        assert two.state.issued_at > one.state.issued_at


async def test_a_restarted_broker_keeps_its_revocations_though_it_is_rendered_without(fleet: FleetBroker) -> None:
    bad = fleet.credentials("agent", "srv1")
    async with fleet.link("sys", "controller") as system:
        await system.wait_connected(5)
        await push_account(system, fleet.issuer, {nkey(bad): int(time.time())}, serial=1)
        operator_before = fleet.keys.operator_jwt
        await fleet.restart()
        assert fleet.keys.operator_jwt == operator_before
        with pytest.raises((NatsError, OSError)):
            async with attacker(msgspec.structs.replace(bad, urls=fleet.urls)):
                pass


async def test_a_node_that_forgot_gets_the_token_again_by_itself(fleet: FleetBroker) -> None:
    bad = fleet.credentials("agent", "srv1")
    async with fleet.link("sys", "controller") as system:
        await system.wait_connected(5)
        state = (await push_account(system, fleet.issuer, {nkey(bad): int(time.time())}, serial=1)).state
        pushed: list[str] = []

        async def on_node(name: str) -> None:
            await push_state(system, fleet.issuer, state)
            pushed.append(name)

        await NodeWatch(system, on_node).start()
        await eventually(lambda: pushed == ["n1"], within_s=15)
        await fleet.process.stop()
        for token in fleet.settings.jwt_directory.iterdir():
            token.unlink()
        await fleet.restart()
        await eventually(lambda: pushed == ["n1", "n1"], within_s=15)
        (held,) = await held_accounts(system, fleet.keys.fleet_account)
        assert held == state


async def test_a_connection_can_be_found_and_kicked(fleet: FleetBroker) -> None:
    async with fleet.link("sys", "controller") as system, attacker(fleet.credentials("agent", "srv1")) as noisy:
        await system.wait_connected(5)
        assert await count_nodes(system) == 1
        async with fleet.link("agent", "srv2") as agent:
            await agent.wait_connected(5)
            (connection,) = await list_connections(system, nkey(agent.credentials))
            await kick(system, connection)
            await eventually(lambda: agent.last_error)
            await eventually(lambda: agent.connected)
        assert noisy.client.is_connected


async def test_rights_that_a_release_changed_hold_once_the_account_is_pushed(
    fleet: FleetBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    command_line = fleet.credentials("cli", "root")
    older = msgspec.structs.replace(ROLES["cli"].template, publish=SubjectRights(allow=("fleet.ctl.>",)))
    async with fleet.link("sys", "controller") as system:
        await system.wait_connected(5)
        with monkeypatch.context() as patch:
            patch.setitem(ROLES, "cli", msgspec.structs.replace(ROLES["cli"], template=older))
            await push_account(system, fleet.issuer, {}, serial=1)
        async with attacker(command_line) as connected:
            assert await connected.may_publish("fleet.ctl.status")
            await push_account(system, fleet.issuer, {}, serial=2)
            await asyncio.wait_for(connected.closed.wait(), 2)
        async with attacker(command_line) as again:
            assert not await again.may_publish("fleet.ctl.status")
            assert await again.may_publish("fleet.ctl.cli.status")
