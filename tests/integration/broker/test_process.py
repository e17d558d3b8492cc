"""Starting a broker: it is ready when it says so, and says in one line why when it is not."""

import asyncio
import ssl
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from harness.broker import FleetBroker, running_broker
from xfleet_nats.fleet import FleetIssuer, create_fleet
from xfleet_nats.process import BrokerProcess
from xfleet_nats.render import BrokerSettings, ClusterSettings, WebsocketSettings, render_broker
from xfleet_runtime.broker import tls_context
from xfleet_runtime.errors import Unusable
from xfleet_runtime.keys import x509

pytestmark = pytest.mark.real_broker


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[FleetBroker]:
    async with running_broker(tmp_path) as running:
        yield running


def prepared(directory: Path) -> BrokerSettings:
    made = BrokerSettings(directory=directory, port=0)
    render_broker(made, FleetIssuer(create_fleet("test")[1]))
    return made


async def refusal_of(settings: BrokerSettings) -> str:
    process = BrokerProcess(settings)
    with pytest.raises(Unusable) as caught:
        await process.start()
    assert not process.running
    text = str(caught.value)
    assert "\n" not in text
    return text


async def test_a_busy_port_is_named(tmp_path: Path) -> None:
    listener = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    settings = BrokerSettings(directory=tmp_path / "b", port=port)
    render_broker(settings, FleetIssuer(create_fleet("test")[1]))
    said = await refusal_of(settings)
    assert "busy" in said
    assert str(port) in said
    listener.close()
    await listener.wait_closed()


@pytest.mark.parametrize("file", ["server.key", "server.crt", "ca.crt"])
async def test_a_broken_key_or_certificate_is_named(tmp_path: Path, file: str) -> None:
    settings = prepared(tmp_path / "b")
    (settings.directory / file).write_text("broken")
    said = await refusal_of(settings)
    assert "does not start" in said
    assert any(word in said.lower() for word in ("tls", "pem", "certificate", file))


async def test_a_broken_configuration_is_named(tmp_path: Path) -> None:
    settings = prepared(tmp_path / "b")
    settings.config_file.write_text("listen: {")
    assert str(settings.config_file) in await refusal_of(settings)


async def test_keys_and_configuration_are_for_the_owner_s_eyes_only(fleet: FleetBroker) -> None:
    directory = fleet.settings.directory
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for name in ("server.conf", "server.key", "server.crt", "ca.crt"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600, name


async def test_the_shipped_single_node_is_what_the_design_asks_for(fleet: FleetBroker) -> None:
    facts = await fleet.process.monitor("/varz")
    assert facts["tls_required"]
    assert facts["tls_verify"]
    assert facts["jetstream"]["config"]["sync_always"]
    assert facts["jetstream"]["config"].get("strict", True)
    assert facts["http_host"] == "127.0.0.1"
    assert facts["cluster"] == {}
    assert "connect_urls" not in facts
    text = fleet.settings.config_file.read_text()
    assert text.count('min_version: "1.3"') == text.count("tls {") == 1
    assert "allow_delete: false" in text


async def test_rendering_again_keeps_the_operator_s_token_and_reloads(fleet: FleetBroker) -> None:
    before = fleet.settings.config_file.read_text()
    settings = msgspec.structs.replace(fleet.settings, port=fleet.process.port, monitor_port=fleet.process.monitor_port)
    render_broker(settings, fleet.issuer)
    after = settings.config_file.read_text()
    operator = [line for line in before.splitlines() if line.startswith("operator:")]
    assert operator == [line for line in after.splitlines() if line.startswith("operator:")]
    fleet.process.reload()
    async with fleet.link("agent", "srv1") as agent:
        await agent.wait_connected(5)


@pytest.mark.parametrize(
    ("more", "word"), [({"server_name": "a b"}, "named"), ({"port": 70000}, "port"), ({"monitor_port": -3}, "port")]
)
def test_settings_that_cannot_work_are_refused_before_anything_is_written(
    tmp_path: Path, more: dict, word: str
) -> None:
    settings = msgspec.structs.replace(BrokerSettings(directory=tmp_path / "b"), **more)
    with pytest.raises(Unusable, match=word):
        render_broker(settings, FleetIssuer(create_fleet("test")[1]))
    assert not (tmp_path / "b").exists()


async def test_a_single_node_s_streams_are_not_given_to_a_cluster_that_would_delete_them(fleet: FleetBroker) -> None:
    await fleet.process.stop()
    leaf = fleet.issuer.issue_route_certificate("n1", ("127.0.0.1",))
    cluster = ClusterSettings(route=leaf, pins=(x509.pin(leaf.chain_pem),), routes=("127.0.0.1:6222",))
    with pytest.raises(Unusable, match="would delete"):
        render_broker(msgspec.structs.replace(fleet.settings, cluster=cluster), fleet.issuer)


async def test_a_websocket_listener_demands_the_same_as_the_other(tmp_path: Path) -> None:
    settings = BrokerSettings(directory=tmp_path / "b", port=0, websocket=WebsocketSettings(port=0))
    issuer = FleetIssuer(create_fleet("test")[1])
    render_broker(settings, issuer)
    process = BrokerProcess(settings)
    await process.start()
    try:
        mine = issuer.bus_credentials("agent", "srv1", ())
        stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        stranger.load_verify_locations(cadata=mine.ca_pem)
        assert b"101" in await upgrade(process.websocket_port, tls_context(mine), mine.tls_name)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await upgrade(process.websocket_port, stranger, mine.tls_name)
    finally:
        await process.stop()


async def upgrade(port: int, context: ssl.SSLContext, tls_name: str) -> bytes:
    """The first line of the answer to a websocket upgrade."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=tls_name)
    try:
        headers = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13"
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        writer.write(f"GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n{key}\r\n\r\n".encode())
        return await reader.readline()
    finally:
        writer.transport.abort()


async def test_a_stopped_broker_is_gone(tmp_path: Path) -> None:
    process = BrokerProcess(prepared(tmp_path / "b"))
    await process.start()
    await process.stop()
    assert not process.running
    assert await process.wait() in {0, 1}
    await process.stop()
