"""A panel that listens on loopback only, as `make up` starts it, opens what a machine elsewhere needs, and no more."""

import hashlib
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from harness.broker import eventually
from harness.fleet import Fleet, fleet_up
from harness.netns import Behind, behind_nat, require_namespaces
from harness.process import run

pytestmark = [
    pytest.mark.real_xray,
    pytest.mark.real_broker,
    pytest.mark.timeout(240),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def behind(request: pytest.FixtureRequest) -> AsyncIterator[Behind]:
    require_namespaces(request.config)
    async with behind_nat() as behind:
        yield behind


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(behind: Behind, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    assert behind.name
    async with fleet_up(tmp_path_factory.mktemp("panel")) as fleet:
        await fleet.wait_online()
        yield fleet


async def test_a_line_is_not_made_before_the_broker_has_a_public_address(fleet: Fleet) -> None:
    known = await fleet.api.get("fleet/broker-addresses")
    assert (known["public_urls"], known["listens"]) == ([], "loopback")
    server = await fleet.api.post("servers", {"name": "early"})
    refused = await fleet.api.client.post(f"servers/{server['id']}/join-line", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "broker_not_public")
    for wrong, code in (("127.0.0.1", "broker_address_local"), ("http://x", "broker_address_wrong")):
        answer = await fleet.api.client.put("fleet/broker-addresses", json={"urls": [wrong]})
        assert (answer.status_code, answer.json()["code"]) == (422, code)


async def test_saying_the_address_opens_the_broker_and_a_side_door(fleet: Fleet, behind: Behind) -> None:
    before, port = fleet.pid_of("broker"), fleet.panel_url.split("/")[2].rpartition(":")[2]
    address = f"{behind.host_address}:{fleet.broker_url.rpartition(':')[2]}"
    known = await fleet.api.call("PUT", "fleet/broker-addresses", json={"urls": [address]})
    assert (known["public_urls"], known["listens"]) == ([f"tls://{address}"], "everywhere")

    async def reachable() -> bool:
        return bool((await fleet.api.post("fleet/reachability", {}))["reachable"])

    await eventually(reachable, within_s=20, every_s=0.2)
    assert fleet.pid_of("broker") != before
    assert (await fleet.wait_online())["slug"] == "local"
    server = next(each for each in (await fleet.api.get("servers"))["items"] if each["slug"] == "early")
    made = await fleet.api.post(f"servers/{server['id']}/join-line", {})
    outside = f"http://{behind.host_address}:{port}"
    assert f"u={outside}/install " in made["line"]
    fetched = await run(behind.command("curl", "-fsS", made["script_url"]))
    assert hashlib.sha256(fetched.out.encode()).hexdigest() == made["script_sha256"]
    async with httpx.AsyncClient() as stranger:
        for path in ("/", "/login", "/api/v1/session", "/sub/x", "/healthz", "/metrics", "/install/../login"):
            assert (await stranger.get(f"{outside}{path}")).status_code == 404, path


async def test_taking_the_addresses_back_closes_the_side_door(fleet: Fleet, behind: Behind) -> None:
    port = fleet.panel_url.split("/")[2].rpartition(":")[2]
    await fleet.api.call("PUT", "fleet/broker-addresses", json={"urls": []})

    async def closed() -> bool:
        try:
            async with httpx.AsyncClient() as stranger:
                await stranger.get(f"http://{behind.host_address}:{port}/install/agent.sh")
        except httpx.TransportError:
            return True
        return False

    await eventually(closed, within_s=10, every_s=0.2)
    assert not (fleet.data_dir / "broker-listen.json").exists()
