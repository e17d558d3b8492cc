"""Care of the machine: certificates, geo files, checks, backups, and what the agent holds."""

import asyncio
import gzip
import io
import secrets
import socket
import ssl
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from harness.agent import AgentProcess, SmallController, agent_process, entities
from harness.broker import FleetBroker, eventually, free_ports
from harness.disk import small_disk
from harness.releases import Mirror
from harness.xray import Sink, XrayClient, direct_to_loopback, new_client, passes, ws_inbound
from xfleet_contracts import codec
from xfleet_contracts.care import (
    BackupOrder,
    BlobSent,
    CertificateGenerate,
    CertificateInfo,
    CertificateList,
    CertificateName,
    CertificatePem,
    ChecksDone,
    ChecksRun,
    Restored,
    RestoreOrder,
    StateHeld,
    StateRead,
)
from xfleet_contracts.desired_state import EntityKey as Key
from xfleet_contracts.desired_state import OutboundBody, RuleBody, digest_of
from xfleet_contracts.installs import Download, GeoFile, GeoFilesUpdate, GeoFilesUpdated, XrayInstall
from xfleet_xraykit.links import share_link


@pytest.fixture
async def agent(broker: FleetBroker, controller: SmallController) -> AsyncIterator[AgentProcess]:
    async with agent_process(broker, trial_s="0.3") as running:
        await controller.heard()
        yield running


@pytest.fixture
async def mirror() -> AsyncIterator[Mirror]:
    async with Mirror.running() as running:
        yield running


async def code_of(controller: SmallController, verb: str, body: object) -> str:
    reply = await controller.ask(verb, body)
    assert reply.error is not None, reply
    return reply.error.code


async def made(controller: SmallController, *domains: str, days_count: int = 90) -> CertificateInfo:
    order = CertificateGenerate(domains=domains, days_count=days_count)
    return await controller.order("certs.generate", CertificateInfo, order)


async def test_certificates_are_made_here_and_their_keys_stay(agent: AgentProcess, controller: SmallController) -> None:
    assert (await controller.order("certs.list", CertificateList)).certificates == ()
    first = await made(controller, "vpn.example.org", "*.example.org", "192.0.2.7", "2001:db8::1")
    assert first.domains == ("vpn.example.org", "*.example.org", "192.0.2.7", "2001:db8::1")
    assert first.self_signed
    assert (first.not_after_ms - first.not_before_ms) // 86_400_000 == 90
    key = Path(first.key_path)
    assert key.stat().st_mode & 0o777 == 0o600
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(first.certificate_path, key)
    again = await made(controller, "VPN.example.org")
    assert (again.name, again.key_path) == (first.name, first.key_path)
    assert again.sha256 != first.sha256, "a new one takes the place of the old"
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(again.certificate_path, again.key_path)
    await made(controller, "*.example.net")
    junk = agent.state_dir / "certs" / "junk"
    junk.mkdir()
    (junk / "cert.pem").write_text("no certificate")
    listed = await controller.order("certs.list", CertificateList)
    assert [each.name for each in listed.certificates] == ["_wildcard.example.net", "vpn.example.org"]
    reply = await controller.ask("certs.get", CertificateName(name="vpn.example.org"))
    got = codec.decode(bytes(reply.data), CertificatePem)
    assert (got.info, got.certificate_pem.count("BEGIN CERTIFICATE")) == (again, 1)
    assert b"PRIVATE" not in bytes(reply.data)
    for name in ("no.such", "junk", "../identity.json", "", ".", "..", "x/../vpn.example.org"):
        assert await code_of(controller, "certs.get", CertificateName(name=name)) == "certificate_unknown", name
    for domain in ("", "not a host", "ex_ample..org", "-x.org", "a" * 300, "https://x.org", "x.org\n", "☃.example"):
        assert await code_of(controller, "certs.generate", CertificateGenerate(domains=(domain,))) == "domain_wrong"
    for order in (
        CertificateGenerate(domains=()),
        CertificateGenerate(domains=("x.org",) * 51),
        CertificateGenerate(domains=("x.org",), days_count=0),
        CertificateGenerate(domains=("x.org",), days_count=10**9),
    ):
        assert await code_of(controller, "certs.generate", order) == "malformed"


def geo_order(mirror: Mirror, **files: bytes) -> GeoFilesUpdate:
    return GeoFilesUpdate(
        files=tuple(GeoFile(name=f"{name}.dat", file=mirror.offer(data)) for name, data in files.items())
    )


def geo_ip(country: str, network: bytes, prefix: int) -> bytes:
    """A list with one country and one network, as Xray reads it."""
    cidr = b"\x0a" + bytes([len(network)]) + network + b"\x10" + bytes([prefix])
    entry = b"\x0a" + bytes([len(country)]) + country.encode() + b"\x12" + bytes([len(cidr)]) + cidr
    return b"\x0a" + bytes([len(entry)]) + entry


async def test_geo_files_come_into_use_with_a_new_xray_and_rules_that_waited_for_them(
    agent: AgentProcess, controller: SmallController, mirror: Mirror, sink: Sink
) -> None:
    inbound = ws_inbound(7001)
    client = new_client(501, inbound)
    rule = RuleBody(rule={"ip": ["geoip:zz"], "outboundTag": "block"})
    state = entities(direct_to_loopback(), inbound, client)
    state[Key(kind="rule", id="r1")] = codec.canonical(rule)
    report = await controller.apply(state)
    assert [(each.key.kind, each.code) for each in report.degraded] == [("rule", "refused_by_xray")]
    before = (await controller.heard()).xray.start_id
    order = geo_order(mirror, geoip=geo_ip("ZZ", bytes([192, 0, 2, 0]), 24))
    done = await controller.order("geofiles.update", GeoFilesUpdated, order)
    assert done == GeoFilesUpdated(changed=("geoip.dat",), restarted=True)
    beat = await eventually(lambda: next((each for each in controller.beats[-1:] if not each.degraded_count), None))
    assert beat.xray.start_id != before
    link = share_link(inbound, client, address="127.0.0.1", remark="t")
    async with XrayClient.from_link(link) as app:
        assert await passes(app, sink)
        same = await controller.order("geofiles.update", GeoFilesUpdated, order)
        assert same == GeoFilesUpdated()
        # a list without the country that a rule names is not taken
        refused = await controller.ask("geofiles.update", geo_order(mirror, geoip=geo_ip("YY", bytes(4), 8)))
        assert refused.error is not None
        assert refused.error.code == "install_refused"
        assert await passes(app, sink)
        assert (await controller.heard()).xray.start_id == beat.xray.start_id
    [kept] = (agent.state_dir / "geo").iterdir()
    assert [each.name for each in kept.iterdir()] == ["geoip.dat"]
    good = mirror.offer(b"x")
    lost = Download(url=f"{good.url}x", sha256=good.sha256)
    for files, code in (
        ((), "malformed"),
        ((GeoFile(name="../x.dat", file=good),), "malformed"),
        ((GeoFile(name="geoip.txt", file=good),), "malformed"),
        ((GeoFile(name="a.dat", file=good), GeoFile(name="a.dat", file=good)), "malformed"),
        ((GeoFile(name="a.dat", file=Download(url=good.url, sha256="0" * 64)),), "checksum_wrong"),
        ((GeoFile(name="a.dat", file=good), GeoFile(name="b.dat", file=lost)), "download_failed"),
    ):  # fmt: skip
        assert await code_of(controller, "geofiles.update", GeoFilesUpdate(files=files)) == code
    assert list((agent.state_dir / "incoming").iterdir()) == []


@asynccontextmanager
async def tls_site(directory: Path, *, h2: bool = True, newest: bool = True) -> AsyncIterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    context.set_alpn_protocols(["h2"] if h2 else ["http/1.1"])
    if not newest:
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.read()
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_checks_say_what_clients_would_find(agent: AgentProcess, controller: SmallController) -> None:
    own = await controller.order("checks.run", ChecksDone)
    assert {each.name: each.status for each in own.results} == dict.fromkeys(
        ("xray", "disk", "clock", "broker", "spool"), "ok"
    ), own
    beat = await controller.heard()
    assert beat.free_state_bytes > 0
    assert beat.link == controller.broker.urls[0]
    inbound = ws_inbound(7001)
    await controller.apply(entities(inbound))
    certificate = await made(controller, "site.example")
    directory = Path(certificate.certificate_path).parent
    free, closed = free_ports(2)
    with socket.socket() as taken, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken_udp:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        taken_udp.bind(("127.0.0.1", 0))
        busy, busy_udp = taken.getsockname()[1], taken_udp.getsockname()[1]
        async with (
            tls_site(directory) as good,
            tls_site(directory, h2=False) as plain,
            tls_site(directory, newest=False) as old,
        ):
            targets = (*(f"127.0.0.1:{port}" for port in (good, plain, old, closed)), "nowhere.invalid:443", "x", ":0")
            done = await controller.order(
                "checks.run",
                ChecksDone,
                ChecksRun(tls_targets=targets, free_ports=(free, busy, busy_udp, inbound.port, 0)),
            )
    found = {each.name: each for each in done.results}
    for name, status, word in (
        (f"tls 127.0.0.1:{good}", "warning", "certificate is not good"),
        (f"tls 127.0.0.1:{plain}", "failed", "without h2"),
        (f"tls 127.0.0.1:{old}", "failed", "TLS 1.3"),
        (f"tls 127.0.0.1:{closed}", "failed", "Cannot connect"),
        ("tls nowhere.invalid:443", "failed", ""),
        ("tls x", "failed", "host:port"),
        (f"port {free}", "ok", "Free"),
        (f"port {busy}", "failed", "TCP: another"),
        (f"port {busy_udp}", "failed", "UDP: another"),
        (f"port {inbound.port}", "warning", "Inbound 7001"),
        ("port 0", "failed", "1 to 65535"),
    ):
        assert (found[name].status, word in found[name].text) == (status, True), found[name]
    assert await code_of(controller, "checks.run", ChecksRun(free_ports=tuple(range(1, 40)))) == "malformed"
    assert await code_of(controller, "checks.run", ChecksRun(tls_targets=("x" * 300,))) == "malformed"
    await controller.order("xray.stop", dict)
    stopped = await controller.order("checks.run", ChecksDone)
    assert next(each for each in stopped.results if each.name == "xray").status == "warning"


async def test_a_backup_crosses_a_lossy_bus_and_comes_back_to_an_empty_machine(
    agent: AgentProcess, controller: SmallController, mirror: Mirror
) -> None:
    client = new_client(501, inbound := ws_inbound(7001))
    await controller.apply(entities(inbound, client))
    await made(controller, "vpn.example.org")
    geo = geo_ip("ZZ", bytes(4), 8) + secrets.token_bytes(300_000)
    await controller.order("geofiles.update", GeoFilesUpdated, geo_order(mirror, extra=geo))
    controller.lose_acks = 1
    sent = await controller.order("backup", BlobSent, BackupOrder(transfer="t1"), timeout_s=60)
    data = controller.received("t1")
    assert (sent.size_bytes, sent.sha256, sent.parts_count) == (len(data), codec.sha256_hex(data), 3)
    assert controller.lose_acks == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
        wanted = archive.extractfile("state/wanted.json")
        assert wanted is not None
        assert {"kind": "client", "id": "501.7001", "body": msgspec.to_builtins(client)} in msgspec.json.decode(
            wanted.read()
        )
    assert sorted(names) == [
        "certs/vpn.example.org/cert.pem", "certs/vpn.example.org/key.pem", "geo/extra.dat", "settings.json",
        "state/good.json", "state/wanted.json",
    ]  # fmt: skip
    secret = msgspec.json.decode((agent.state_dir / "identity.json").read_bytes())["nkey_seed"]
    assert secret.encode() not in b"".join(unpacked(data).values())
    assert await code_of(controller, "backup", BackupOrder(transfer="a.b")) == "malformed"
    # the machine is lost; an agent with another state directory gets it back
    await agent.end()
    async with agent_process(controller.broker, trial_s="0.3") as fresh:
        await eventually(lambda: controller.beats[-1].wanted_revision == 0)
        done = await controller.order("restore", Restored, controller.offers("t2", data), timeout_s=60)
        assert done == Restored(certificates=("vpn.example.org",), geo_files=("extra.dat",))
        [info] = (await controller.order("certs.list", CertificateList)).certificates
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(info.certificate_path, info.key_path)
        assert Path(info.key_path).stat().st_mode & 0o777 == 0o600
        assert [path.read_bytes() for path in (fresh.state_dir / "geo").glob("*/extra.dat")] == [geo]
        await hostile_archives(controller, data)
        assert list((fresh.state_dir / "incoming").iterdir()) == []
        assert not (fresh.state_dir.parent / "evil").exists()


def unpacked(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: file.read() for member in archive if (file := archive.extractfile(member)) is not None}


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def member(
    name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE, target: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, data if kind == tarfile.REGTYPE else b""


def liar(name: str, size_bytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    return gzip.compress(info.tobuf())


async def hostile_archives(controller: SmallController, good: bytes) -> None:
    pems = unpacked(good)
    certificate = pems["certs/vpn.example.org/cert.pem"]
    for archive in (
        b"not an archive",
        good[:-2000],
        tar(member("../evil")),
        tar(member("/etc/evil")),
        tar(member("certs/../../evil/cert.pem")),
        tar(member("geo/../evil.dat")),
        tar(member("geo/x.dat", kind=tarfile.SYMTYPE, target="/etc/passwd")),
        tar(member("geo/x.dat", kind=tarfile.LNKTYPE, target="geo/y.dat")),
        tar(member("geo/x.dat", kind=tarfile.CHRTYPE)),
        tar(member("geo/x.dat"), member("geo/x.dat")),
        tar(member("identity.json")),
        tar(member("certs/x/key.pem", pems["certs/vpn.example.org/key.pem"])),
        tar(member("certs/x/cert.pem", certificate), member("certs/x/key.pem", b"junk")),
        tar(*(member(f"geo/{number}.dat") for number in range(2100))),
        liar("geo/bomb.dat", 300_000_000),
    ):
        assert await code_of(controller, "restore", controller.offers("t3", archive)) == "archive_refused"
    order = controller.offers("t4", good)
    controller.blobs["t4"][1] = bytes(len(controller.blobs["t4"][1]))
    assert await code_of(controller, "restore", order) == "checksum_wrong"
    controller.blobs["t4"][1] = b"short"
    assert await code_of(controller, "restore", order) == "checksum_wrong"
    for wrong in (
        RestoreOrder(transfer="t4", size_bytes=2**40, sha256=order.sha256, parts_count=3),
        RestoreOrder(transfer="t4", size_bytes=10, sha256=order.sha256, parts_count=3),
        RestoreOrder(transfer=">", size_bytes=10, sha256=order.sha256, parts_count=1),
        RestoreOrder(transfer="t4", size_bytes=10, sha256="x", parts_count=1),
    ):
        assert await code_of(controller, "restore", wrong) == "malformed"


async def test_what_the_agent_holds_is_read_page_by_page_byte_for_byte(
    agent: AgentProcess, controller: SmallController
) -> None:
    inbound = ws_inbound(7001)
    clients = [new_client(number, inbound) for number in range(1, 1500)]
    big = OutboundBody(tag="big", protocol="freedom", settings={"note": "x" * 150_000})
    state = entities(direct_to_loopback(), big, inbound, *clients)
    await controller.apply_snapshot(state, 7)
    held: dict[Key, bytes] = {}
    pages = 0
    while True:
        page = await controller.order("state.read", StateHeld, StateRead(offset=len(held)))
        assert (page.point.revision, page.total_count) == (7, len(state))
        if not page.entities:
            break
        held |= {each.key: bytes(each.body) for each in page.entities}
        pages += 1
    assert held == state
    assert digest_of(held) == page.point.digest
    assert pages > 1
    assert (await controller.order("state.read", StateHeld, StateRead(offset=-5))).entities


async def test_a_full_disk_refuses_orders_in_words_and_keeps_what_is_there(
    broker: FleetBroker, controller: SmallController, mirror: Mirror, pytestconfig: pytest.Config
) -> None:
    with small_disk(pytestconfig) as disk:
        async with agent_process(broker, within=disk.path, trial_s="0.2") as agent:
            await controller.heard()
            info = await made(controller, "vpn.example.org")
            before = Path(info.key_path).read_bytes()
            order = XrayInstall(version="9.9", archive=mirror.offer(secrets.token_bytes(100_000)))
            assert await code_of(controller, "xray.install", order) == "download_failed", "32 MiB stay free"
            disk.fill()
            for verb, body in (
                ("certs.generate", CertificateGenerate(domains=("vpn.example.org",))),
                ("geofiles.update", geo_order(mirror, geoip=secrets.token_bytes(3_000_000))),
                ("xray.install", order),
                ("backup", BackupOrder(transfer="t1")),
            ):
                assert await code_of(controller, verb, body) in {"storage", "download_failed"}, verb
            assert Path(info.key_path).read_bytes() == before
            assert (await controller.order("checks.run", ChecksDone)).results[1].status == "failed"
            disk.empty()
            assert (await made(controller, "vpn.example.org")).sha256 != info.sha256
            assert list((agent.state_dir / "incoming").iterdir()) == []
