import pytest

from harness.xray import (
    HEADER,
    Sink,
    TlsTarget,
    XrayClient,
    XrayServer,
    new_client,
    open_stream,
    passes,
    reality_inbound,
    state_of,
    transfer,
    until,
    ws_inbound,
)
from xfleet_contracts.desired_state import ClientBody, InboundBody
from xfleet_xraykit.api import XrayApi
from xfleet_xraykit.counters import ClientTraffic, client_traffic
from xfleet_xraykit.links import share_link
from xfleet_xraykit.protocols import inbound_protocols
from xfleet_xraykit.render import render_inbound

pytestmark = pytest.mark.real_xray
EXACT = ClientTraffic(up_bytes=3_000_016, down_bytes=7_000_000)


def link_of(inbound: InboundBody, client: ClientBody) -> str:
    return share_link(inbound, client, address="127.0.0.1", remark="test")


async def until_counted(api: XrayApi, client: ClientBody, wanted: ClientTraffic) -> None:
    async def counted() -> bool:
        return client_traffic(await api.query_counters()).get((client.client, client.inbound)) == wanted

    await until(counted)


async def add(api: XrayApi, inbound: InboundBody, client: ClientBody) -> None:
    account = inbound_protocols()[inbound.protocol].account(client, inbound)
    await api.add_user(f"in-{inbound.ref}", inbound.protocol, f"{client.client}.{inbound.ref}", account)


async def test_vless_reality_vision_is_counted_to_the_byte_from_a_link_alone() -> None:
    async with Sink() as sink, TlsTarget() as target:
        inbound = reality_inbound(7, target.port)
        client = new_client(3, inbound)
        assert client.flow == "xtls-rprx-vision"
        async with (
            XrayServer.running(state_of([(inbound, [client])])) as server,
            XrayClient.from_link(link_of(inbound, client)) as app,
        ):
            assert await transfer(app, sink) == EXACT
            assert (sink.received_bytes, sink.sent_bytes) == EXACT
            await until_counted(server.api, client, EXACT)


async def test_vless_ws_is_counted_to_the_byte_from_a_link_alone() -> None:
    async with Sink() as sink:
        inbound = ws_inbound(7)
        client = new_client(3, inbound)
        async with (
            XrayServer.running(state_of([(inbound, [client])])) as server,
            XrayClient.from_link(link_of(inbound, client)) as app,
        ):
            assert await transfer(app, sink) == EXACT
            await until_counted(server.api, client, EXACT)


async def test_a_client_from_another_address_is_seen_online() -> None:
    async with Sink() as sink:
        inbound = ws_inbound(7)
        client = new_client(3, inbound)
        async with (
            XrayServer.running(state_of([(inbound, [client])])) as server,
            XrayClient.from_link(link_of(inbound, client), send_through="127.0.0.2") as app,
        ):
            stream = await open_stream(app, sink.port)
            await stream.send(HEADER.pack(1, 5))
            await stream.receive(5)
            online = await server.api.online_users()
            assert [at.ip for at in online["3.7"]] == ["127.0.0.2"]
            await stream.close()


async def test_changing_other_clients_and_inbounds_does_not_interrupt_a_running_transfer() -> None:
    async with Sink() as sink, TlsTarget() as target:
        inbound, other = reality_inbound(7, target.port), ws_inbound(8)
        client, neighbour = new_client(3, inbound), new_client(4, inbound)
        async with (
            XrayServer.running(state_of([(inbound, [client])])) as server,
            XrayClient.from_link(link_of(inbound, client)) as app,
        ):
            stream = await open_stream(app, sink.port)
            await stream.send(HEADER.pack(3_000, 1_000) + bytes(1_000))
            await stream.receive(1_000)
            await add(server.api, inbound, neighbour)
            async with XrayClient.from_link(link_of(inbound, neighbour)) as second:
                assert await passes(second, sink)
            await stream.send(bytes(1_000))
            await server.api.remove_user("in-7", "4.7")
            guest = new_client(5, other)
            await server.api.add_inbound(render_inbound(other, {"5.8": guest}))
            async with XrayClient.from_link(link_of(other, guest)) as third:
                assert await transfer(third, sink) == EXACT
            await until_counted(server.api, guest, EXACT)
            await server.api.remove_inbound("in-8")
            await stream.send(bytes(1_000))
            assert await stream.reader.read() == b""
            await stream.close()
            await until_counted(server.api, client, ClientTraffic(3_016, 1_000))


async def test_a_removed_client_gets_no_new_stream_and_keeps_its_counter() -> None:
    async with Sink() as sink:
        inbound = ws_inbound(7)
        client = new_client(3, inbound)
        async with (
            XrayServer.running(state_of([(inbound, [client])])) as server,
            XrayClient.from_link(link_of(inbound, client)) as app,
        ):
            assert await passes(app, sink)
            await server.api.remove_user("in-7", "3.7")
            assert not await passes(app, sink, timeout_s=1)
            await add(server.api, inbound, client)
            assert await passes(app, sink)
            await until_counted(server.api, client, ClientTraffic(52, 20))


async def test_a_blocked_client_gets_no_new_stream_even_on_its_multiplexed_connection() -> None:
    async with Sink() as sink:
        inbound = ws_inbound(7)
        client, neighbour = new_client(3, inbound), new_client(4, inbound)
        async with (
            XrayServer.running(state_of([(inbound, [client, neighbour])])) as server,
            XrayClient.from_link(link_of(inbound, client), mux=True) as app,
            XrayClient.from_link(link_of(inbound, neighbour)) as other,
        ):
            everything = {"ruleTag": "all", "network": "tcp,udp", "outboundTag": "direct"}
            await server.api.set_rules([everything])
            held = await open_stream(app, sink.port)
            await held.send(HEADER.pack(1, 5))
            await held.receive(5)
            await server.api.remove_user("in-7", "3.7")
            assert await passes(app, sink), "mux goes on after RemoveUser: this is why there are blocks"
            await server.api.block_user("3.7")
            assert not await passes(app, sink, timeout_s=1)
            assert await passes(other, sink)
            await server.api.unblock_user("3.7")
            assert await passes(app, sink)
            await held.close()
