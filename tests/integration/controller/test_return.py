"""The way back over HTTPS: an agent whose credentials expired comes back by itself, and nobody else comes with it."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio

from harness.agent import agent_process
from harness.broker import eventually, free_ports
from harness.controller import open_api
from harness.controller_fleet import Keys, World, api_of, events_of, issued_identity, running_world, tell_manifest
from harness.proxies import running_proxy
from xfleet_cli.up.tls import own_certificate
from xfleet_contracts import codec
from xfleet_contracts.commands import SIGNATURE_HEADER, Reply
from xfleet_contracts.enrollment import (
    RENEW_CONTEXT,
    RENEW_HEADER,
    RENEW_PATH,
    AgentIdentity,
    EnrollAnswer,
    EnrollRequest,
    HttpsRenewal,
)
from xfleet_controller.fleet.returns import BURST_COUNT
from xfleet_controller.serve import bind, web_server
from xfleet_runtime.clock import SystemClock
from xfleet_runtime.ids import new_token
from xfleet_runtime.keys import signing, x509
from xfleet_runtime.keys.nkeys import KeyPair

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real_broker]
LONG_AGO = timedelta(days=400)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("world")
    certificate = own_certificate(directory / "tls", SystemClock())
    (port,) = free_ports(1)
    async with running_world(
        directory / "data", port=port, base_path="/xyz", tls_cert=certificate.chain, tls_key=certificate.key,
        heartbeat_interval_s=1.0,
    ) as running:  # fmt: skip
        tell_manifest(running, broker_urls=(running.broker.url,))
        with bind("127.0.0.1", port) as listener:
            async with web_server(running.controller, listener) as server:
                serving = asyncio.ensure_future(server.finished())
                yield running
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)


@pytest_asyncio.fixture(loop_scope="module")
async def api(world: World) -> AsyncIterator[Any]:
    async with api_of(world) as client:
        yield client


async def added(api: httpx.AsyncClient, name: str) -> int:
    made = await api.post("/api/v1/servers", json={"name": name})
    assert made.status_code == 201, made.text
    return made.json()["id"]


class Asking:
    """Somebody who asks for renewal with an identity's keys."""

    def __init__(self, world: World, identity: AgentIdentity, address: str) -> None:
        self._world = world
        self._identity = identity
        self._address = address

    async def __call__(self, *, tamper: bytes = b"", sign_with: KeyPair | None = None, **changes: Any) -> Reply:
        pair = KeyPair.from_seed(self._identity.nkey_seed)
        body = HttpsRenewal(
            sid=self._identity.sid,
            request=EnrollRequest(nkey=pair.public, csr_pem=x509.request_pem(self._identity.key_pem)),
            issued_at_ms=SystemClock().now_ms(),
            nonce=new_token(),
        )
        question = codec.encode(msgspec.structs.replace(body, **changes))
        signature = (sign_with or pair).sign(RENEW_CONTEXT + question)
        headers = {RENEW_HEADER: base64.urlsafe_b64encode(signature).decode().rstrip("=")}
        async with open_api(self._world.controller.context, address=self._address) as client:
            answer = await client.post(RENEW_PATH, content=question + tamper, headers=headers)
        reply = codec.decode(answer.content, Reply)
        assert (answer.status_code == 200) is reply.ok
        if not tamper:
            sent = codec.decode(question, HttpsRenewal)
            keys = signing.trusted_keys(signing.open_manifest(self._identity.root_public_key, self._identity.manifest))
            asked = signing.Asked(reply=sent.nonce, subject=RENEW_PATH, question=question)
            signing.verify_answer(keys, answer.headers.get(SIGNATURE_HEADER), asked, answer.content)
        return reply


def code_of(reply: Reply) -> str:
    return reply.error.code if reply.error is not None else "ok"


async def test_each_wrong_request_is_refused_by_name(world: World, api: httpx.AsyncClient) -> None:
    server_id = await added(api, "wronged")
    identity = await issued_identity(world, "wronged", lived=LONG_AGO)
    asking = Asking(world, identity, "198.51.100.1")
    now_ms = SystemClock().now_ms()
    stranger = Keys()
    strange = EnrollRequest(nkey=stranger.pair.public, csr_pem=stranger.csr_pem)
    assert code_of(await asking(tamper=b" ")) == "signature_wrong"
    assert code_of(await asking(sign_with=stranger.pair)) == "signature_wrong"
    assert code_of(await asking(sid="nobody")) == "server_unknown"
    assert code_of(await asking(sid="local")) == "server_unknown"
    assert code_of(await asking(request=strange, sign_with=stranger.pair)) == "server_unknown"
    for wrong_ms in (now_ms - 301_000, now_ms + 310_000, 0, 2**62):
        stale = await asking(issued_at_ms=wrong_ms)
        assert code_of(stale) == "clock"
        assert stale.error is not None
        assert abs(stale.error.details["now_ms"] - now_ms) < 60_000
    pair = KeyPair.from_seed(identity.nkey_seed)
    assert code_of(await asking(request=EnrollRequest(nkey=pair.public, csr_pem="no"))) == "key_unusable"
    nonce = new_token()
    assert code_of(await asking(nonce=nonce)) == "ok"
    assert code_of(await asking(nonce=nonce)) == "nonce_used"
    assert code_of(await asking(nonce="")) == "signature_wrong"
    await api.post(f"/api/v1/servers/{server_id}/revoke", json={"reason": "sold"})
    assert code_of(await asking()) == "revoked"
    rows = (await api.get(f"/api/v1/servers/{server_id}/identities")).json()
    assert [(row["source"], row["status"]) for row in rows] == [("https", "revoked"), ("enroll", "revoked")]


async def test_a_flood_of_requests_is_held_up_before_anything_is_looked_at(
    world: World, api: httpx.AsyncClient
) -> None:
    await added(api, "flooded")
    identity = await issued_identity(world, "flooded", lived=LONG_AGO)
    async with open_api(world.controller.context, address="198.51.100.2") as client:
        codes = [(await client.post(RENEW_PATH, content=b"{")).json()["error"]["code"] for _ in range(BURST_COUNT + 5)]
        large = await client.post(RENEW_PATH, content=b" " * 100_000)
    assert codes[0] == "malformed"
    assert codes[-1] == "rate_limited"
    assert large.status_code in {413, 429}
    assert code_of(await Asking(world, identity, "198.51.100.3")()) == "ok"
    many = [code_of(await Asking(world, identity, f"198.51.100.{index}")()) for index in range(10, 35)]
    assert many[-1] == "renewed_too_often"


async def test_an_agent_that_slept_for_a_year_comes_back_by_itself_through_its_proxy(
    world: World, api: httpx.AsyncClient
) -> None:
    server_id = await added(api, "sleeper")
    identity = await issued_identity(world, "sleeper", lived=LONG_AGO)
    async with running_proxy("socks5", login=("me", "secret")) as proxy:
        async with agent_process(None, identity=identity, broker_proxy=proxy.setting) as agent:

            async def online() -> bool:
                return (await api.get(f"/api/v1/servers/{server_id}")).json()["status"] == "online"

            await eventually(online, within_s=30)
            assert "secret" not in agent.log()
            stored = msgspec.json.decode((agent.state_dir / "identity.json").read_bytes(), type=AgentIdentity)
            assert stored.nkey_seed == identity.nkey_seed
            assert stored.jwt != identity.jwt
        assert f"127.0.0.1:{world.settings.port}" in proxy.asked
    rows = (await api.get(f"/api/v1/servers/{server_id}/identities")).json()
    assert [(row["source"], row["status"]) for row in rows] == [("https", "good"), ("enroll", "expired")]
    assert any(event.type == "server_returned" and event.server == "sleeper" for event in await events_of(world))


async def test_a_revoked_agent_does_not_come_back_this_way(world: World, api: httpx.AsyncClient) -> None:
    server_id = await added(api, "gone")
    identity = await issued_identity(world, "gone", lived=LONG_AGO)
    await api.post(f"/api/v1/servers/{server_id}/revoke", json={})
    async with agent_process(None, identity=identity) as agent:
        await eventually(lambda: '"code": "revoked"' in agent.log(), within_s=20)
        stored = msgspec.json.decode((agent.state_dir / "identity.json").read_bytes(), type=AgentIdentity)
        assert stored.jwt == identity.jwt


async def test_what_the_way_there_makes_of_the_answer_is_not_believed(
    world: World, api: httpx.AsyncClient, tmp_path: Path
) -> None:
    await added(api, "lied-to")
    identity = await issued_identity(world, "lied-to", lived=LONG_AGO)
    thief = await issued_identity(world, "lied-to")
    lie = EnrollAnswer(sid="lied-to", jwt=thief.jwt, cert_pem=thief.cert_pem, manifest=identity.manifest)
    payload = codec.encode(Reply(ok=True, data=msgspec.Raw(codec.canonical(lie))))
    asked = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        await reader.readexactly(int(head.lower().partition("content-length: ")[2].partition("\r\n")[0]))
        asked += 1
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(payload)}\r\n\r\n".encode() + payload)
        await writer.drain()
        writer.close()

    certificate = own_certificate(tmp_path / "tls", SystemClock())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain, certificate.key)
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    fleet = world.controller.context.fleet
    assert fleet is not None
    before = fleet.manifest
    tell_manifest(world, panel_urls=(f"https://127.0.0.1:{port}",))
    lied_to, fleet.manifest = msgspec.structs.replace(identity, manifest=fleet.manifest), before
    async with agent_process(None, identity=lied_to) as agent:
        await eventually(lambda: asked, within_s=20)
        await eventually(lambda: "could not be asked" in agent.log(), within_s=5)
        stored = msgspec.json.decode((agent.state_dir / "identity.json").read_bytes(), type=AgentIdentity)
        assert stored.jwt == identity.jwt
    server.close()
