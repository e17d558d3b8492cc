"""The kill switch as people use it: revoke a server, see its identities, let it enroll anew."""

import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from sqlalchemy import select

from harness.broker import eventually
from harness.controller_fleet import World, api_of, ask_enrollment, events_of, open_token, running_world, small_agent
from xfleet_controller.fleet.certificates import watch_expiry
from xfleet_controller.fleet.models import Certificate

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real_broker]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with running_world(tmp_path_factory.mktemp("world") / "data") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def api(world: World) -> AsyncIterator[Any]:
    async with api_of(world) as client:
        yield client


async def joining(world: World, api: Any, name: str) -> tuple[int, Any]:
    """A new server's id and its enrollment token."""
    made = await api.post("/api/v1/servers", json={"name": name})
    assert made.status_code == 201, made.text
    token = msgspec.structs.replace(open_token(made.json()["enrollment_token"]), broker_urls=(world.broker.url,))
    return made.json()["id"], token


async def test_a_revoked_server_is_cut_within_a_second_stays_out_and_enrolls_anew(world: World, api: Any) -> None:
    server_id, token = await joining(world, api, "lost")
    spare = (await api.post(f"/api/v1/servers/{server_id}/enrollment-tokens")).json()["enrollment_token"]
    async with small_agent(world, token=token) as agent:
        await eventually(lambda: agent.point.revision > 0)
        started_s = time.monotonic()
        done = await api.post(f"/api/v1/servers/{server_id}/revoke", json={"reason": "stolen"})
        await eventually(lambda: not agent.link.connected, within_s=1)
        cut_s = time.monotonic() - started_s
        assert cut_s < 1
        assert done.status_code == 200, done.text
        assert done.json() == {"server": "lost", "certificates_count": 1, "pushed": True}
        await eventually(lambda: agent.link.refused, within_s=5)
    shown = (await api.get(f"/api/v1/servers/{server_id}")).json()
    assert shown["status"] == "offline"
    assert "stolen" in shown["last_error"]
    (row,) = (await api.get(f"/api/v1/servers/{server_id}/identities")).json()
    assert (row["status"], row["reason"], row["source"]) == ("revoked", "stolen", "enroll")
    assert any(event.type == "server_revoked" and event.server == "lost" for event in await events_of(world))
    voided = msgspec.structs.replace(open_token(spare), broker_urls=(world.broker.url,))
    refused = await ask_enrollment(voided, agent.keys)
    assert refused.error is not None
    assert refused.error.code == "token_expired"
    line = (await api.post(f"/api/v1/servers/{server_id}/enrollment-tokens")).json()["enrollment_token"]
    token = msgspec.structs.replace(open_token(line), broker_urls=(world.broker.url,))
    async with small_agent(world, token=token) as again:
        assert again.link.connected
        assert (await api.get(f"/api/v1/servers/{server_id}")).json()["last_error"] == ""


async def test_revoking_what_is_not_there_is_refused(api: Any) -> None:
    assert (await api.post("/api/v1/servers/99999/revoke", json={})).json()["code"] == "not_found"
    assert (await api.post("/api/v1/servers/1/revoke", json={"why": "x"})).json()["code"] == "invalid"
    assert (await api.get("/api/v1/servers/99999/identities")).status_code == 404


async def test_an_identity_that_comes_to_its_end_is_told_once_per_step_and_measured(world: World, api: Any) -> None:
    server_id, token = await joining(world, api, "ageing")
    context = world.controller.context
    async with small_agent(world, token=token) as agent:
        nkey = agent.keys.pair.public
    for left, steps in ((timedelta(days=29), 1), (timedelta(days=28), 1), (timedelta(hours=5), 2)):
        async with context.database.write() as session:
            (row,) = await certificates_of(session, nkey)
            row.expires_at = context.clock.now() + left
        await watch_expiry(context)

        async def told(steps: int = steps) -> bool:
            return steps == sum(
                event.type == "certificate_expiring" and event.server == "ageing" for event in await events_of(world)
            )

        await eventually(told)
    assert 'xfleet_certificate_expires_seconds{server="ageing"} 1' in (await api.get("http://localhost/metrics")).text
    (shown,) = (await api.get(f"/api/v1/servers/{server_id}/identities")).json()
    assert shown["status"] == "good"


async def certificates_of(session: Any, nkey: str) -> list[Certificate]:
    return list((await session.scalars(select(Certificate).where(Certificate.nkey == nkey))).all())
