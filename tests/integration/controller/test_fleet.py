"""Enrollment, renewal, revocation and the desks, over the real broker."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from harness.broker import attacker, eventually
from harness.controller_fleet import (
    Keys,
    World,
    api_of,
    ask_enrollment,
    events_of,
    open_token,
    running_world,
    small_agent,
    token_credentials,
)
from xfleet_contracts import codec, control, subjects
from xfleet_contracts.apply import ChunkRequest
from xfleet_contracts.commands import AgentInfo, Nothing, Reply
from xfleet_contracts.control import Actor, ActorRequest, BindRequest, FleetStatus
from xfleet_contracts.enrollment import EnrollAnswer, EnrollRequest
from xfleet_contracts.events import AgentEvent
from xfleet_controller.audit.models import AuditRow
from xfleet_controller.bus import AgentOffline, AgentTimeout
from xfleet_controller.fleet.models import EnrollmentToken, Revocation
from xfleet_controller.init import InitOrder, initialize
from xfleet_runtime.broker import BrokerLink, NoResponders
from xfleet_runtime.errors import Unusable
from xfleet_runtime.keys import signing, x509

pytestmark = pytest.mark.real_broker


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running_world(tmp_path / "data") as running:
        yield running


@pytest.fixture
async def api(world: World) -> AsyncIterator[Any]:
    async with api_of(world) as client:
        yield client


async def test_the_same_token_with_the_same_keys_gets_the_same_answer(world: World) -> None:
    token, keys = world.token(), Keys()
    first, again = await ask_enrollment(token, keys), await ask_enrollment(token, keys)
    assert first.ok
    assert bytes(first.data) == bytes(again.data)
    answer = msgspec.json.decode(first.data, type=EnrollAnswer)
    assert answer.sid == "local"
    assert x509.common_name(answer.cert_pem) == "local"
    manifest = signing.open_manifest(token.root_public_key, answer.manifest)
    assert manifest.serial == 2
    assert len(manifest.command_keys) == 1


async def test_a_used_token_with_other_keys_is_refused_and_raises_an_alarm(world: World) -> None:
    token = world.token()
    assert (await ask_enrollment(token, Keys())).ok
    refused = await ask_enrollment(token, Keys())
    assert refused.error is not None
    assert refused.error.code == "token_used"

    async def alarmed() -> bool:
        return any(event.type == "enrollment_alarm" and event.server == "local" for event in await events_of(world))

    await eventually(alarmed)
    async with world.controller.context.database.read() as session:
        rows = (await session.scalars(select(AuditRow).where(AuditRow.action == "enroll_refused"))).all()
    assert len(rows) == 1


async def test_many_at_once_with_one_token_are_one_enrollment(world: World) -> None:
    token = world.token()
    replies = await asyncio.gather(*(ask_enrollment(token, Keys()) for _ in range(5)))
    assert [reply.ok for reply in replies].count(True) == 1


async def test_an_expired_token_is_refused(world: World) -> None:
    token = world.token()
    async with world.controller.context.database.write() as session:
        row = await session.get_one(EnrollmentToken, token.token_id)
        row.expires_at = row.created_at - timedelta(seconds=1)
    refused = await ask_enrollment(token, Keys())
    assert refused.error is not None
    assert refused.error.code == "token_expired"


async def test_broken_requests_are_refused_and_the_token_stays_good(world: World) -> None:
    token = world.token()
    async with BrokerLink(token_credentials(token), name="broken") as link:
        await link.wait_connected(5)
        for payload, code in (
            (b"{", "malformed"),
            (codec.encode(EnrollRequest(nkey="UABC", csr_pem="no")), "key_unusable"),
            (codec.encode(EnrollRequest(nkey="UABC", csr_pem=Keys().csr_pem)), "key_unusable"),
        ):
            answer = await link.request(subjects.enroll(token.token_id), payload, timeout_s=5)
            error = codec.decode(answer.payload, Reply).error
            assert error is not None
            assert error.code == code
    assert (await ask_enrollment(token, Keys())).ok


async def test_a_deleted_servers_agent_is_cut_at_once_and_stays_out(world: World, api: Any) -> None:
    made = await api.post("/api/v1/servers", json={"name": "Second one"})
    assert made.status_code == 201, made.text
    token = msgspec.structs.replace(open_token(made.json()["enrollment_token"]), broker_urls=(world.broker.url,))
    async with small_agent(world, token=token) as agent:
        assert agent.sid == "second-one"
        await eventually(lambda: agent.point.revision > 0)
        assert (await api.delete(f"/api/v1/servers/{made.json()['id']}?force=true")).json()["state"] == "deleted"
        await eventually(lambda: not agent.link.connected, within_s=2)
        await eventually(lambda: agent.link.refused, within_s=5)
    async with world.controller.context.database.read() as session:
        assert (await session.scalars(select(Revocation.nkey))).all() == [agent.keys.pair.public]
    again = await api.post("/api/v1/servers", json={"name": "Second one"})
    assert again.json()["errors"][0]["code"] == "slug_taken"


async def test_enrolling_anew_revokes_the_older_identity(world: World, api: Any) -> None:
    async with small_agent(world) as old:
        line = (await api.post("/api/v1/servers/1/enrollment-tokens")).json()["enrollment_token"]
        token = msgspec.structs.replace(open_token(line), broker_urls=(world.broker.url,))
        async with small_agent(world, token=token) as new:
            await eventually(lambda: not old.link.connected, within_s=3)
            assert new.link.connected


async def test_an_agent_renews_without_losing_what_it_has(world: World) -> None:
    async with small_agent(world) as agent:
        keys = agent.keys
        request = EnrollRequest(nkey=keys.pair.public, csr_pem=keys.csr_pem)
        reply = await agent.call("renew", request)
        assert reply.ok, reply.error
        answer = msgspec.json.decode(reply.data, type=EnrollAnswer)
        renewed = msgspec.structs.replace(
            agent.link.credentials, jwt=answer.jwt, cert_pem=answer.cert_pem, key_pem=keys.key_pem, seed=keys.pair.seed
        )
        await agent.link.replace_credentials(renewed)
        assert (await agent.call("state", ChunkRequest(revision=1, chunk="0" * 64))).error is not None


async def test_only_a_servers_own_key_is_renewed_and_not_for_ever(world: World) -> None:
    async with small_agent(world) as agent:
        stranger = Keys()
        reply = await agent.call("renew", EnrollRequest(nkey=stranger.pair.public, csr_pem=stranger.csr_pem))
        assert reply.error is not None
        assert reply.error.code == "key_unusable"
        request = EnrollRequest(nkey=agent.keys.pair.public, csr_pem=agent.keys.csr_pem)
        replies = [await agent.call("renew", request) for _ in range(25)]
        assert {reply.error.code for reply in replies if reply.error is not None} == {"renewed_too_often"}
        assert replies[0].ok


async def test_nobody_enrolls_with_the_key_of_another_server(world: World) -> None:
    context = world.controller.context
    async with small_agent(world) as victim:
        async with api_of(world) as api:
            made = await api.post("/api/v1/servers", json={"name": "second"})
        assert made.status_code == 201, made.text
        token = msgspec.structs.replace(open_token(made.json()["enrollment_token"]), broker_urls=(world.broker.url,))
        reply = await ask_enrollment(token, victim.keys)
        assert reply.error is not None
        assert reply.error.code == "key_unusable"
        assert context.presence.is_online("local")
        assert (await ask_enrollment(token, Keys())).ok, "the token is not used up by it"


async def test_calls_are_answered_only_to_the_askers_own_inbox(world: World) -> None:
    async with small_agent(world) as agent, attacker(agent.link.credentials) as hostile:
        body = codec.encode(ChunkRequest(revision=1, chunk="0" * 64))
        for reply in ("$JS.API.STREAM.DELETE.TRAFFIC", "fleet.cmd.local.x", "_INBOX.a.other.x", "_INBOX.a.local"):
            await hostile.client.publish(subjects.call("local", "state"), body, reply=reply)
        await hostile.settle()
        await eventually(lambda: world.controller.desks.refused_count["foreign_inbox"] == 4)
        unknown = await agent.call("nothing", Nothing())
        assert unknown.error is not None
        assert unknown.error.code == "unknown_method"
    assert (await world.controller.bus.commands.js.stream_info("TRAFFIC")).config.name == "TRAFFIC"


async def test_a_command_to_nobody_is_offline_and_to_a_silent_agent_unknown(world: World) -> None:
    commander = world.controller.commander
    with pytest.raises(AgentOffline):
        await commander.request("local", "info", Nothing(), AgentInfo)
    async with small_agent(world):
        with pytest.raises(AgentTimeout):
            await commander.request("local", "info", Nothing(), AgentInfo, timeout_s=0.3)


async def test_the_bot_binds_by_a_code_and_asks_for_the_status(world: World, api: Any) -> None:
    credentials = json.loads(Path(world.made.bot_credentials_file).read_bytes()) | {"urls": [world.broker.url]}
    from xfleet_runtime.broker import Credentials

    async with BrokerLink(msgspec.convert(credentials, Credentials), name="bot") as bot:
        await bot.wait_connected(5)

        async def ask(method: str, body: Any) -> Reply:
            answer = await bot.request(subjects.control(method), codec.encode(body), timeout_s=5)
            return codec.decode(answer.payload, Reply)

        stranger = await ask(control.STATUS, ActorRequest(telegram_id=7))
        assert stranger.error is not None
        assert stranger.error.code == "not_bound"
        code = (await api.post("/api/v1/bot/codes")).json()["code"]
        wrong = await ask(control.BIND, BindRequest(telegram_id=7, code="WRONG"))
        assert wrong.error is not None
        assert wrong.error.code == "code_refused"
        bound = await ask(control.BIND, BindRequest(telegram_id=7, code=code.lower(), name="Ann"))
        assert msgspec.json.decode(bound.data, type=Actor) == Actor(admin="admin", role="owner")
        assert not (await ask(control.BIND, BindRequest(telegram_id=8, code=code))).ok
        who = await ask(control.WHOAMI, ActorRequest(telegram_id=7))
        assert msgspec.json.decode(who.data, type=Actor).admin == "admin"
        async with small_agent(world):
            await eventually(lambda: world.controller.context.presence.is_online("local"))
            status = msgspec.json.decode(
                (await ask(control.STATUS, ActorRequest(telegram_id=7))).data, type=FleetStatus
            )
        assert [(line.slug, line.status, line.cpu_percent) for line in status.servers] == [("local", "online", 12.5)]
        for _ in range(6):
            guess = await ask(control.BIND, BindRequest(telegram_id=9, code="GUESS"))
        assert guess.error is not None
        assert guess.error.code == "too_many_tries"


async def test_the_command_line_finds_the_micro_service(world: World) -> None:
    credentials = world.controller.context.fleet.issuer.bus_credentials("ops-ro", "ops", (world.broker.url,))  # type: ignore[union-attr]
    async with BrokerLink(credentials, name="ops") as link:
        await link.wait_connected(5)
        info = json.loads((await link.request("$SRV.INFO.xfleet", b"", timeout_s=5)).payload)
        assert {each["subject"] for each in info["endpoints"]} >= {
            "fleet.ctl.status",
            "fleet.ctl.bind",
            "fleet.ctl.cli.status",
        }
        with pytest.raises(NoResponders):
            await link.request("$SRV.PING.nothing", b"", timeout_s=0.3)


async def test_a_server_that_comes_and_goes_is_told(world: World, api: Any) -> None:
    async with small_agent(world):

        async def told() -> bool:
            return any(event.type == "server_online" for event in await events_of(world))

        await eventually(told)
        shown = (await api.get("/api/v1/servers/1")).json()
        assert (shown["status"], shown["reported_address"]) == ("online", "192.0.2.7")


async def test_init_again_keeps_everything(world: World) -> None:
    again = await initialize(world.settings, InitOrder(local_agent=True, broker_port=0))
    assert (again.new, again.admin_created, again.fleet_id) == (False, False, world.made.fleet_id)
    config = Path(again.broker_config).read_text()
    assert Path(world.made.broker_config).read_text() == config


async def test_a_changed_address_makes_a_higher_manifest_and_an_offline_root_keeps_the_old(tmp_path: Path) -> None:
    from xfleet_controller.config import ControllerSettings
    from xfleet_controller.db import Database
    from xfleet_controller.fleet import store
    from xfleet_controller.fleet.keyring import find_root

    settings = ControllerSettings(data_dir=tmp_path / "data", admin_password="long enough")

    async def serial() -> int:
        database = Database(settings.database)
        async with database.read() as session:
            held = await store.find_setting(session, "manifest")
        await database.close()
        return json.loads(base64.b64decode(held["payload"]))["serial"]

    await initialize(settings, InitOrder(broker_port=4222))
    assert await serial() == 1
    await initialize(settings, InitOrder(broker_port=4222))
    assert await serial() == 1
    await initialize(settings, InitOrder(broker_port=4333))
    assert await serial() == 2
    root = find_root(settings.root_file)
    assert root is not None
    settings.root_file.rename(tmp_path / "offline")
    await initialize(settings, InitOrder(broker_port=4444))
    assert await serial() == 2
    assert (settings.key_file.stat().st_mode & 0o777) == 0o600
    settings.key_file.unlink()
    with pytest.raises(Unusable, match="is missing"):
        await initialize(settings, InitOrder())


async def test_what_agents_tell_becomes_an_event_and_the_servers_last_error(world: World, api: Any) -> None:
    async with small_agent(world) as agent:
        subject = subjects.agent_event("local")
        await agent.link.publish(subject, b"not json")
        event = AgentEvent(type="state_rolled_back", id="e1", at_ms=1, details={"epoch": "x"})
        await agent.link.publish(subject, codec.encode(event))

        async def told() -> bool:
            return any(each.type == "state_rolled_back" and each.server == "local" for each in await events_of(world))

        await eventually(told, within_s=15)
        assert "restored from a copy" in (await api.get("/api/v1/servers/1")).json()["last_error"]
        await agent.beat()
