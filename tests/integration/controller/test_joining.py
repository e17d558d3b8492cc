"""Where the broker is, the line that joins a machine, and the door from which it fetches: over the real broker."""

import base64
import hashlib
import os
import re
import sys
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio

from harness.broker import eventually
from harness.controller import open_api
from harness.controller_fleet import Keys, World, api_of, ask_enrollment, open_token, running_world, small_agent
from xfleet_contracts.enrollment import EnrollmentToken
from xfleet_controller.auth.rights import Actor, Forbidden
from xfleet_controller.install.gate import BURST_COUNT
from xfleet_controller.install.library import Library, script_of
from xfleet_controller.joining import service
from xfleet_runtime.clock import FakeClock
from xfleet_runtime.keys import signing

pytestmark = [pytest.mark.real_broker, pytest.mark.asyncio(loop_scope="module")]
PUBLIC = "tls://vpn.example.org:4222"
PANEL = "https://panel.example.org/base"
OWNER = Actor(name="admin", role="owner", admin_id=1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with running_world(tmp_path_factory.mktemp("joining") / "data") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(world: World) -> AsyncIterator[Any]:
    async with api_of(world) as client:
        yield client


def token_in(line: str) -> EnrollmentToken:
    """What the line gives on standard input."""
    text = re.search(r"echo ([A-Za-z0-9_-]+) \|", line)
    assert text is not None
    raw = base64.urlsafe_b64decode(text[1] + "=" * (-len(text[1]) % 4))
    return msgspec.json.decode(zlib.decompress(raw), type=EnrollmentToken)


async def test_agents_learn_new_addresses_at_their_next_beat_and_keep_ours(world: World) -> None:
    context = world.controller.context
    async with small_agent(world) as agent:
        known = await service.set_broker_addresses(context, OWNER, [PUBLIC, "203.0.113.9", "wss://[2001:db8::1]/ws"])
        assert known.public_urls[0] == PUBLIC
        assert known.public_urls[2] == "wss://[2001:db8::1]:443/ws"
        await agent.beat(manifest_serial=1)
        await eventually(lambda: "manifest" in agent.heard)
    assert context.fleet is not None
    manifest = signing.open_manifest(context.fleet.issuer.keys.root_public, context.fleet.manifest)
    assert manifest.serial > 1
    assert manifest.broker_urls == (*known.own_urls, *known.public_urls)


async def test_a_line_names_only_what_other_machines_can_reach(world: World) -> None:
    context = world.controller.context
    await service.set_broker_addresses(context, OWNER, [PUBLIC])
    made = await service.make_join_line(context, OWNER, 1, panel_url=PANEL, replaces=True)
    assert f"u={PANEL}/install s={made.script_sha256} " in made.line
    assert (made.server, made.replaces) == ("local", True)
    token = token_in(made.line)
    assert token == open_token(made.token)
    assert token.broker_urls == (PUBLIC,)
    assert token.seed not in made.script_url
    for local in ("http://127.0.0.1:2053", "http://localhost:2053/x", "http://[::1]:1"):
        with pytest.raises(service.PanelNotPublic):
            await service.make_join_line(context, OWNER, 1, panel_url=local)
    await service.set_broker_addresses(context, OWNER, [])
    with pytest.raises(service.BrokerNotPublic):
        await service.make_join_line(context, OWNER, 1, panel_url=PANEL)
    with pytest.raises(Forbidden):
        await service.make_join_line(context, Actor(name="s", role="support"), 1, panel_url=PANEL)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("127.0.0.1", "broker_address_local"), ("tls://localhost:4222", "broker_address_local"),
        ("tls://[::1]:4222", "broker_address_local"), ("0.0.0.0", "broker_address_local"),
        ("169.254.1.1", "broker_address_local"), ("https://x.example", "broker_address_wrong"),
        ("nats://x.example", "broker_address_wrong"), ("tls://u:p@x.example", "broker_address_wrong"),
        ("tls://x.example/path", "broker_address_wrong"), ("x.example:99999", "broker_address_wrong"),
        ("x.example:0", "broker_address_wrong"), ("a b", "broker_address_wrong"), ("'; id #", "broker_address_wrong"),
        ("x" * 300, "broker_address_wrong"), ("tls://[::1", "broker_address_wrong"),
    ],
    ids=str,
)  # fmt: skip
async def test_an_address_that_can_be_none_is_refused_with_its_word(api: Any, given: str, code: str) -> None:
    for method, path in (("PUT", "fleet/broker-addresses"), ("POST", "fleet/reachability")):
        answer = await api.request(method, f"/api/v1/{path}", json={"urls": [given]})
        assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text


async def test_an_address_where_nobody_listens_is_said_to_be_unreachable(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "DIAL_TIMEOUT_S", 0.7)
    answer = await api.post("/api/v1/fleet/reachability", json={"urls": ["tls://no-such-host.invalid:4222"]})
    (dial,) = answer.json()["dials"]
    assert (answer.json()["reachable"], dial["ok"], dial["code"]) == (False, False, "unreachable")
    assert "firewall" in dial["reason"]


async def test_addresses_of_ones_own_take_the_right_to_set_them_and_a_few_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, reader = world.controller.context, Actor(name="reader", role="read-only", admin_id=2)
    assert not (await service.reachability(context, reader)).reachable
    with pytest.raises(Forbidden):
        await service.reachability(context, reader, ["tls://10.0.0.1:22"])
    monkeypatch.setattr(service, "DIAL_BURST_COUNT", 3)
    operator = Actor(name="many", role="operator", admin_id=3)
    with pytest.raises(service.TooManyDials):
        await service.reachability(context, operator, [f"tls://10.0.0.1:{port}" for port in (22, 80, 443, 5432)])


async def test_an_offline_root_is_said_and_nothing_changes(world: World) -> None:
    context, root = world.controller.context, world.settings.root_file
    aside = root.with_suffix(".safe")
    root.rename(aside)
    try:
        with pytest.raises(service.RootOffline):
            await service.set_broker_addresses(context, OWNER, ["198.51.100.7"])
        assert (await service.broker_addresses(context, OWNER)).public_urls == ()
    finally:
        aside.rename(root)


async def test_guessing_with_one_token_is_slowed_down(world: World) -> None:
    context = world.controller.context
    made = await service.make_join_line(context, OWNER, 1, panel_url=PANEL, anywhere=True)
    token = msgspec.structs.replace(open_token(made.token), broker_urls=(world.broker.url,))
    keys = Keys()
    assert (await ask_enrollment(token, keys)).ok
    codes = [reply.error.code for _ in range(11) if (reply := await ask_enrollment(token, Keys())).error is not None]
    assert codes[0] == "token_used"
    assert codes[-1] == "rate_limited"


async def test_the_door_gives_files_by_their_sum_and_nothing_else(world: World) -> None:
    context = world.controller.context
    script = await script_of(context.library)
    file = next(iter(context.library.files.values()))
    async with open_api(context, address="203.0.113.5") as stranger:
        newest = await stranger.get("/install/agent.sh")
        assert hashlib.sha256(newest.content).hexdigest() == script.sha256
        named = await stranger.get(f"/install/{script.sha256}/agent.sh")
        assert (named.content, "immutable" in named.headers["cache-control"]) == (newest.content, True)
        fetched = await stranger.get(f"/install/{file.sha256}/{file.name}")
        assert hashlib.sha256(fetched.content).hexdigest() == file.sha256
        for path in (
            f"/install/{'0' * 64}/agent.sh", f"/install/{file.sha256}/other.whl", f"/install/{file.sha256.upper()}/x",
            "/install/..%2f..%2fkeys/key-file", "/install/%2e%2e/xfleet.db", "/install/x/y/z", "/install", "/install/",
        ):  # fmt: skip
            answer = await stranger.get(path)
            assert answer.status_code == 404, path
            assert answer.headers["content-type"].startswith(("application/problem+json", "text/"))
        assert (await stranger.post("/install/agent.sh")).status_code == 405


async def test_one_address_cannot_keep_the_door_busy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    context = world.controller.context
    monkeypatch.setattr(context, "clock", FakeClock())
    async with open_api(context, address="203.0.113.6") as greedy, open_api(context, address="203.0.113.7") as other:
        codes = [(await greedy.get("/install/agent.sh")).status_code for _ in range(BURST_COUNT + 1)]
        assert codes == [200] * BURST_COUNT + [429]
        refused = await greedy.get("/install/agent.sh")
        assert (refused.json()["code"], refused.headers["retry-after"]) == ("rate_limited", "60")
        assert (await other.get("/install/agent.sh")).status_code == 200


async def test_a_line_made_before_an_upgrade_still_finds_its_script(tmp_path: Path) -> None:
    library = Library(tmp_path / "install")
    old = library.refresh()
    (tmp_path / "install" / "wheelhouse").mkdir()
    assert library.wheel is not None
    bought = tmp_path / "install" / "wheelhouse" / "click-99-py3-none-any.whl"
    bought.write_bytes(b"other")
    new = library.refresh()
    assert old.sha256 != new.sha256
    assert library.find_script(old.sha256) == old.content


async def test_the_door_is_below_the_base_path(world: World) -> None:
    context = world.controller.context
    settings = context.settings
    context.settings = msgspec.structs.replace(settings, base_path="/hidden")
    try:
        async with open_api(context) as below, httpx.AsyncClient(
            transport=below._transport, base_url="http://panel.test"
        ) as root:  # fmt: skip
            assert (await below.get("/install/agent.sh")).status_code == 200
            assert (await root.get("/install/agent.sh")).status_code == 404
    finally:
        context.settings = settings


async def test_the_panel_offers_its_own_release_to_its_agents(world: World, api: Any) -> None:
    await service.set_broker_addresses(world.controller.context, OWNER, [PUBLIC])
    alone = (await api.get("/api/v1/fleet/agent-release")).json()
    assert alone["wheelhouse"] == []
    assert alone["wheel"]["url"].endswith(f"xfleet-{alone['version']}-py3-none-any.whl")
    version, machine = f"{sys.version_info[0]}.{sys.version_info[1]}", os.uname().machine
    whole = (await api.get("/api/v1/fleet/agent-release", params={"python": version, "machine": machine})).json()
    assert any("/xray_core-" in each["url"] for each in whole["wheelhouse"])
    fetched = await api.get(whole["wheel"]["url"].partition("panel.test")[2])
    assert hashlib.sha256(fetched.content).hexdigest() == whole["wheel"]["sha256"]
