"""Brokers form a cluster among themselves only: nobody joins as a route with another certificate."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from harness.broker import eventually, free_ports
from xfleet_nats.fleet import FleetIssuer, create_fleet
from xfleet_nats.process import BrokerProcess, find_nats_server
from xfleet_nats.render import BrokerSettings, ClusterSettings, render_broker
from xfleet_runtime.broker import tls_context
from xfleet_runtime.keys import x509

pytestmark = pytest.mark.real_broker
ADDRESSES = ("127.0.0.1",)


@asynccontextmanager
async def node(
    directory: Path, issuer: FleetIssuer, name: str, leaf: x509.Leaf, pins: tuple[str, ...], ports: tuple[int, ...]
) -> AsyncIterator[BrokerProcess]:
    """A node listening for routes on the first of the ports."""
    routes = tuple(f"127.0.0.1:{port}" for port in ports)
    cluster = ClusterSettings(route=leaf, pins=pins, routes=routes, port=ports[0])
    settings = BrokerSettings(directory=directory / name, server_name=name, port=0, cluster=cluster)
    render_broker(settings, issuer)
    process = BrokerProcess(settings)
    await process.start()
    try:
        yield process
    finally:
        await process.stop()


async def peers(process: BrokerProcess) -> set[str]:
    return {route["remote_name"] for route in (await process.monitor("/routez"))["routes"]}


@asynccontextmanager
async def rogue(
    directory: Path, fleet_id: str, target: BrokerProcess, chain: str, key: str, ca: str
) -> AsyncIterator[Path]:
    """A nats-server of the attacker's own making that wants to be a route of the target; yields its log."""
    directory.mkdir()
    for name, text in (("cert", chain), ("key", key), ("ca", ca)):
        (directory / name).write_text(text)
    tls = {f"{name}_file": str(directory / name) for name in ("cert", "key", "ca")}
    config = {
        "server_name": "rogue",
        "listen": "127.0.0.1:-1",
        "debug": True,
        "logfile": str(directory / "log"),
        "cluster": {
            "name": f"xfleet-{fleet_id}",
            "listen": "127.0.0.1:-1",
            "routes": [f"nats-route://127.0.0.1:{target.cluster_port}"],
            "tls": {**tls, "insecure": True},
        },
    }
    (directory / "conf").write_text(json.dumps(config))
    child = await asyncio.create_subprocess_exec(
        str(find_nats_server()),
        "-c",
        str(directory / "conf"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield directory / "log"
    finally:
        child.terminate()
        await child.wait()


async def test_a_broker_with_a_pinned_route_certificate_joins(tmp_path: Path) -> None:
    issuer = FleetIssuer(create_fleet("test")[1])
    leaves = {name: issuer.issue_route_certificate(name, ADDRESSES) for name in ("n1", "n2")}
    pins = tuple(x509.pin(leaf.chain_pem) for leaf in leaves.values())
    one, two = free_ports(2)
    async with (
        node(tmp_path, issuer, "n1", leaves["n1"], pins, (one, two)) as first,
        node(tmp_path, issuer, "n2", leaves["n2"], pins, (two, one)) as second,
    ):
        await eventually(lambda: _is(first, {"n2"}))
        await eventually(lambda: _is(second, {"n1"}))


async def _is(process: BrokerProcess, expected: set[str]) -> bool:
    return await peers(process) == expected


@pytest.mark.parametrize("disguise", ["agent", "controller", "broker", "unpinned route", "foreign authority"])
async def test_a_rogue_broker_does_not_join(tmp_path: Path, disguise: str) -> None:
    issuer = FleetIssuer(create_fleet("test")[1])
    leaf = issuer.issue_route_certificate("n1", ADDRESSES)
    match disguise:
        case "agent" | "controller":
            stolen = issuer.bus_credentials("agent" if disguise == "agent" else "ctl", "srv1", ())
            chain, key = stolen.cert_pem, stolen.key_pem
        case "broker":
            broker = issuer.issue_broker_certificate()
            chain, key = broker.chain_pem, broker.key_pem
        case "unpinned route":
            route = issuer.issue_route_certificate("n2", ADDRESSES)
            chain, key = route.chain_pem, route.key_pem
        case _:
            other = FleetIssuer(create_fleet("test")[1]).issue_route_certificate("n1", ADDRESSES)
            chain, key = other.chain_pem, other.key_pem
    authority = issuer.keys.route_authority.certificate_pem
    async with node(tmp_path, issuer, "n1", leaf, (x509.pin(leaf.chain_pem),), tuple(free_ports(2))) as target:
        async with rogue(tmp_path / "rogue", "test", target, chain, key, authority) as log:
            await eventually(lambda: _turned_away(target))
            assert await peers(target) == set()
        assert "tls" in log.read_text().lower()


def _turned_away(target: BrokerProcess) -> bool:
    """The target names its reason: a client certificate it does not trust, or one that is not pinned."""
    text = target.settings.log_file.read_text().lower()
    reasons = ("failed to verify certificate", "didn't provide a certificate", "unknown authority", "not pinned")
    return any(reason in text for reason in reasons)


async def test_the_route_listener_trusts_no_agent_even_if_its_certificate_is_pressed_on_it(tmp_path: Path) -> None:
    """Go's client keeps back a certificate the other side's authorities did not sign; OpenSSL sends it all the same."""
    issuer = FleetIssuer(create_fleet("test")[1])
    leaf = issuer.issue_route_certificate("n1", ADDRESSES)
    agent = issuer.bus_credentials("agent", "srv1", ())
    context = tls_context(msgspec.structs.replace(agent, ca_pem=issuer.keys.route_authority.certificate_pem))
    context.check_hostname = False
    async with node(tmp_path, issuer, "n1", leaf, (x509.pin(leaf.chain_pem),), tuple(free_ports(2))) as target:
        reader, writer = await asyncio.open_connection("127.0.0.1", target.cluster_port, ssl=context)
        with pytest.raises((ssl.SSLError, ConnectionError), match=r"(?i)alert|reset"):
            await reader.readexactly(1)
        writer.transport.abort()
