"""New certificates and tokens while everything runs: no message lost, no command failed."""

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest
import pytest_asyncio

from harness.agent import SmallController, agent_process
from harness.broker import FleetBroker, eventually, running_broker
from xfleet_contracts.commands import AgentHealth
from xfleet_nats.process import reload_running
from xfleet_nats.render import renew_certificate
from xfleet_runtime.broker import BrokerLink, BrokerOutage, Credentials, Incoming, tls_context
from xfleet_runtime.keys import x509
from xfleet_runtime.keys.nkeys import KeyPair

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real_broker]
RENEWALS_COUNT = 20
PAUSE_S, BATCH_PAUSE_S = 0.003, 0.012
"""A subject of the stream takes 256 messages that nobody has fetched."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FleetBroker]:
    async with running_broker(tmp_path_factory.mktemp("broker"), streams=True, websocket=True) as running:
        yield running


def renewed(broker: FleetBroker, old: Credentials) -> Credentials:
    """Another certificate and another token for the same keys."""
    nkey = KeyPair.from_seed(old.seed).public
    token, certificate = broker.issuer.issue_agent(
        old.inbox_prefix.rpartition(".")[2], nkey, x509.request_pem(old.key_pem)
    )
    return msgspec.structs.replace(old, jwt=token, cert_pem=certificate)


async def again_and_again(deed: Callable[[int], Awaitable[None]], until: asyncio.Event, pause_s: float) -> int:
    """How often the deed was done until then."""
    count = 0
    while not until.is_set():
        await deed(count)
        count += 1
        await asyncio.sleep(pause_s)
    return count


async def test_a_real_agent_renews_again_and_again_and_answers_throughout(broker: FleetBroker) -> None:
    async with (
        SmallController.running(broker) as controller,
        agent_process(broker, renew_every_s="0.3", heartbeat_interval_s="0.2") as agent,
    ):
        first = await controller.heard()
        asked = 0
        while len(controller.told("credentials_renewed")) < 10:
            await controller.order("health", AgentHealth, timeout_s=5)
            asked += 1
            await asyncio.sleep(0.01)
        beats = [beat for beat in controller.beats if beat.seq > first.seq]
        assert [beat.seq for beat in beats] == list(range(first.seq + 1, first.seq + 1 + len(beats)))
        assert asked > 50
        assert "lost" not in "".join(line for line in agent.log().splitlines() if "link to the broker" in line)


@pytest.mark.parametrize("scheme", ["tls", "wss"])
async def test_twenty_renewals_under_load_lose_no_message_and_fail_no_command(broker: FleetBroker, scheme: str) -> None:
    sid = f"by-{scheme}"
    credentials = broker.credentials("agent", sid)
    if scheme == "wss":
        urls = (f"wss://127.0.0.1:{broker.process.websocket_port}",)
        credentials = msgspec.structs.replace(credentials, urls=urls)
    async with BrokerLink(credentials, name="agent") as link, broker.link("ctl", "c1") as ctl:
        await link.wait_connected(5)
        await ctl.wait_connected(5)
        before = (await ctl.js.stream_info("TRAFFIC")).state.messages
        heard: set[bytes] = set()
        carried_out: set[bytes] = set()
        tried_again = 0

        async def on_beat(message: Incoming) -> None:
            heard.add(message.payload)

        async def on_command(message: Incoming) -> None:
            carried_out.add(message.payload)
            await link.respond(message, message.payload, within="_INBOX.c")

        await ctl.subscribe(f"fleet.up.{sid}.hb", on_beat)
        await link.subscribe(f"fleet.cmd.{sid}.do", on_command)

        async def send_batch(number: int) -> None:
            await link.publish_stored(f"fleet.up.{sid}.traffic", b"x", message_id=f"{scheme}:{number}")

        async def send_beat(number: int) -> None:
            await link.publish(f"fleet.up.{sid}.hb", str(number).encode())

        async def order(number: int) -> None:
            nonlocal tried_again
            payload = f"{number}".encode()
            for attempt in range(3):
                try:
                    answer = await ctl.request(f"fleet.cmd.{sid}.do", payload, timeout_s=2)
                except BrokerOutage:
                    tried_again += 1
                    assert attempt < 2, "a command failed after it was repeated"
                else:
                    assert answer.payload == payload
                    return

        done = asyncio.Event()
        deeds = ((send_batch, BATCH_PAUSE_S), (send_beat, PAUSE_S), (order, PAUSE_S))
        loops = [asyncio.ensure_future(again_and_again(deed, done, pause_s)) for deed, pause_s in deeds]
        certificates = {link.credentials.cert_pem}
        for _ in range(RENEWALS_COUNT):
            await asyncio.sleep(0.05)
            await link.replace_credentials(renewed(broker, link.credentials))
            certificates.add(link.credentials.cert_pem)
        done.set()
        batches, beats, orders = await asyncio.gather(*loops)
        assert len(certificates) == RENEWALS_COUNT + 1
        await eventually(lambda: len(heard) == beats)
        assert len(carried_out) == orders
        assert (await ctl.js.stream_info("TRAFFIC")).state.messages == before + batches
        sys.stdout.write(f"{scheme}: {batches=} {beats=} {orders=} {tried_again=}\n")
        assert min(batches, beats, orders) > 50


@pytest.mark.parametrize("scheme", ["tls", "wss"])
async def test_a_running_broker_takes_a_new_certificate_and_drops_nobody(broker: FleetBroker, scheme: str) -> None:
    port = broker.process.port if scheme == "tls" else broker.process.websocket_port
    urls = (f"{scheme}://127.0.0.1:{port}",)
    credentials = msgspec.structs.replace(broker.credentials("agent", "srv1"), urls=urls)
    async with BrokerLink(credentials, name="agent") as link:
        await link.wait_connected(5)
        connected_again: list[bool] = []

        async def note() -> None:
            connected_again.append(True)

        link.on_connected(note)
        before = await shown_by(broker, credentials, broker.process.websocket_port)
        renew_certificate(broker.settings.directory, broker.issuer)
        assert reload_running(broker.settings.directory)

        async def changed() -> bool:
            return await shown_by(broker, credentials, broker.process.websocket_port) != before

        await eventually(changed)
        await link.flush()
        assert not connected_again
        async with BrokerLink(credentials, name="another") as another:
            await another.wait_connected(5)


async def shown_by(broker: FleetBroker, credentials: Credentials, port: int) -> bytes:
    """The certificate that the broker shows to newcomers."""
    assert broker.process.running
    context = tls_context(credentials)
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=credentials.tls_name)
    try:
        secured = writer.get_extra_info("ssl_object")
        assert isinstance(secured, ssl.SSLObject)
        return secured.getpeercert(binary_form=True) or b""
    finally:
        writer.transport.abort()


async def test_who_is_not_there_is_not_reloaded(broker: FleetBroker) -> None:
    assert not reload_running(broker.settings.directory / "elsewhere")
