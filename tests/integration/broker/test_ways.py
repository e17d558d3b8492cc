"""Ways to a broker: WebSocket on one port 443, SOCKS and HTTP proxies, several addresses."""

import os
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from harness.broker import FleetBroker, eventually, free_ports, running_broker
from harness.proxies import running_proxy
from xfleet_nats.fleet import FleetIssuer, create_fleet
from xfleet_runtime.broker import BrokerLink, Credentials, Disconnected, Incoming, parse_proxy
from xfleet_runtime.broker.link import in_order

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real_broker]
PASSWORD = "pa:ss word@/ü"
SETTING_PASSWORD = "pa%3Ass%20word%40%2F%C3%BC"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FleetBroker]:
    async with running_broker(tmp_path_factory.mktemp("broker"), streams=True, websocket=True) as running:
        yield running


def by_websocket(broker: FleetBroker, credentials: Credentials, path: str = "/some/path") -> Credentials:
    urls = (f"wss://127.0.0.1:{broker.process.websocket_port}{path}",)
    return msgspec.structs.replace(credentials, urls=urls)


async def works(broker: FleetBroker, link: BrokerLink, name: str = "srv1") -> None:
    """Messages of every size go both ways, many at once, whole and in order."""
    sizes = [0, 1, 124, 125, 126, 127, 65_535, 65_536, 200_000, *range(200)]
    payloads = [os.urandom(size) for size in sizes]
    got: list[bytes] = []

    async def echo(message: Incoming) -> None:
        got.append(message.payload)
        await link.publish(f"fleet.up.{name}.event", message.payload)

    back: list[bytes] = []

    async def heard(message: Incoming) -> None:
        back.append(message.payload)

    await link.subscribe(f"fleet.cmd.{name}.x", echo)
    async with broker.link("ctl", "c1") as ctl:
        await ctl.wait_connected(5)
        await ctl.subscribe(f"fleet.up.{name}.event", heard)
        for payload in payloads:
            await ctl.publish(f"fleet.cmd.{name}.x", payload)
        await eventually(lambda: len(back) == len(payloads))
    assert got == payloads
    assert back == payloads


async def test_an_agent_speaks_through_a_websocket_as_through_tls(broker: FleetBroker) -> None:
    credentials = by_websocket(broker, broker.credentials("agent", "srv1"))
    async with BrokerLink(credentials, name="agent") as link:
        await link.wait_connected(5)
        assert link.url.startswith("wss://")
        await works(broker, link)
        stored = await link.publish_stored("fleet.up.srv1.traffic", b"x", message_id=os.urandom(12).hex())
        assert stored.stream == "TRAFFIC"


async def test_roles_that_belong_on_this_machine_do_not_come_in_by_websocket(broker: FleetBroker) -> None:
    async with BrokerLink(by_websocket(broker, broker.credentials("ctl", "c2")), name="ctl") as link:
        with pytest.raises(Disconnected, match=r"(?i)authorization"):
            await link.wait_connected(0.6)
        assert link.refused


async def test_a_websocket_wants_the_right_certificate_on_both_sides(broker: FleetBroker) -> None:
    good = by_websocket(broker, broker.credentials("agent", "srv1"))
    foreign = FleetIssuer(create_fleet("other")[1]).bus_credentials("agent", "srv1", good.urls)
    for wrong in (
        msgspec.structs.replace(good, cert_pem=foreign.cert_pem, key_pem=foreign.key_pem),
        msgspec.structs.replace(good, ca_pem=foreign.ca_pem),
        msgspec.structs.replace(good, tls_name="elsewhere.example.org"),
    ):
        async with BrokerLink(wrong, name="wrong", longest_wait_s=0.1) as link:
            with pytest.raises(Disconnected):
                await link.wait_connected(0.7)


async def test_what_is_no_websocket_is_told_in_a_line(broker: FleetBroker) -> None:
    credentials = msgspec.structs.replace(
        broker.credentials("agent", "srv1"), urls=(f"wss://127.0.0.1:{broker.process.port}",)
    )
    async with BrokerLink(credentials, name="agent", longest_wait_s=0.1) as link:
        with pytest.raises(Disconnected, match="wss://"):
            await link.wait_connected(0.6)
        assert not link.refused


@pytest.mark.parametrize("scheme", ["socks5", "http"])
@pytest.mark.parametrize("websocket", [False, True], ids=["tls", "wss"])
async def test_a_proxy_with_a_password_brings_the_agent_to_its_broker(
    broker: FleetBroker, scheme: str, capsys: pytest.CaptureFixture[str], *, websocket: bool
) -> None:
    credentials = broker.credentials("agent", "srv1")
    credentials = by_websocket(broker, credentials) if websocket else credentials
    user = "me" if scheme == "http" else "me+you"
    async with running_proxy(scheme, login=(user, PASSWORD)) as proxy:
        setting = f"{scheme}://{user}:{SETTING_PASSWORD}@127.0.0.1:{proxy.port}"
        async with BrokerLink(credentials, name="agent", proxy=parse_proxy(setting)) as link:
            await link.wait_connected(5)
            await works(broker, link)
            assert proxy.asked == [link.url.split("//")[1].split("/")[0]]
            assert link.way == f"{link.url} via {scheme}://127.0.0.1:{proxy.port}"
            assert PASSWORD not in repr(link.__dict__)
    assert "word" not in capsys.readouterr().out


@pytest.mark.parametrize("scheme", ["socks5", "http"])
async def test_a_proxy_s_no_is_told_in_its_words_and_is_not_the_broker_s(broker: FleetBroker, scheme: str) -> None:
    credentials = broker.credentials("agent", "srv1")
    async with running_proxy(scheme, login=("me", "right")) as proxy:
        for setting in (f"{scheme}://127.0.0.1:{proxy.port}", f"{scheme}://me:wrong@127.0.0.1:{proxy.port}"):
            link = BrokerLink(credentials, name="agent", longest_wait_s=0.1, proxy=parse_proxy(setting))
            async with link:
                with pytest.raises(Disconnected, match="proxy") as told:
                    await link.wait_connected(0.5)
                assert "wrong" not in str(told.value)
                assert not link.refused
        proxy.refusing = True
        async with BrokerLink(credentials, name="a", longest_wait_s=0.1, proxy=parse_proxy(proxy.setting)) as link:
            with pytest.raises(Disconnected, match=r"forbid|Forbidden"):
                await link.wait_connected(0.5)


async def test_every_address_is_tried_and_the_one_that_works_comes_first_afterwards(broker: FleetBroker) -> None:
    (dead,) = free_ports(1)
    working = f"wss://127.0.0.1:{broker.process.websocket_port}/"
    urls = (f"tls://127.0.0.1:{dead}", f"wss://127.0.0.1:{dead}", working)
    credentials = msgspec.structs.replace(broker.credentials("agent", "srv1"), urls=urls)
    async with BrokerLink(credentials, name="agent") as link:
        await link.wait_connected(5)
        assert link.url == working
    for _ in range(20):
        assert in_order(urls, working)[0] == working
        assert in_order(urls, "")[0] == urls[0]
        assert sorted(in_order(urls, "")) == sorted(urls)
