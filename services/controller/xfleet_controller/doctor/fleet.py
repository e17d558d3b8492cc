"""What the database, the broker and the panel themselves say."""

import asyncio
import sqlite3
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from xfleet_contracts.streams import CONSUMERS, STREAMS
from xfleet_controller.backups import snapshot
from xfleet_controller.config import ControllerSettings
from xfleet_controller.db import Database
from xfleet_controller.doctor.findings import Finding, failed, ok, warning
from xfleet_controller.doctor.machine import EXPIRY_WARNING, Memory, expiry
from xfleet_controller.fleet.models import Certificate
from xfleet_controller.servers.models import Server, ServerRevision
from xfleet_nats.fleet import FleetIssuer, FleetKeys
from xfleet_runtime.broker import BrokerLink, BrokerOutage
from xfleet_runtime.clock import Clock
from xfleet_runtime.ids import new_id
from xfleet_runtime.keys import x509

BROKER_TIMEOUT_S = 5.0
PANEL_TIMEOUT_S = 5.0
CLOCK_WARNING_S, CLOCK_FAILED_S = 2.0, 30.0
LAG_WARNING_COUNT = 1000
OK = 200
NAMES_SHOWN = 3
UNWELL = ("stale", "offline")


class _Info(msgspec.Struct):
    """The little of a stream's or consumer's info that is looked at."""

    ts: datetime | None = None
    num_pending: int = 0
    error: dict[str, object] | None = None


async def check_integrity(settings: ControllerSettings) -> Finding:
    """Whether the database is whole."""
    if snapshot.kind_of(settings.database) != "sqlite":
        return ok("integrity", "PostgreSQL looks after itself")
    path = snapshot.sqlite_path(settings.database)

    def look() -> str:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
        try:
            return str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
        finally:
            connection.close()

    try:
        answer = await asyncio.to_thread(look)
    except sqlite3.Error as error:
        answer = str(error)
    size = f"{path.stat().st_size / 1024**2:.1f} MiB"
    if answer == "ok":
        return ok("integrity", f"the database is whole ({size})")
    return failed("integrity", f"the database is damaged: {answer}", "restore a backup: xfleet restore FILE --force")


async def check_servers(database: Database, now: datetime, *, running: bool, own_version: str) -> list[Finding]:
    """Agents: who is missing, what is degraded, whose version or certificate is old."""
    findings: list[Finding] = []
    async with database.read() as session:
        servers = list(
            (await session.scalars(select(Server).where(Server.enabled.is_(True)).order_by(Server.name))).all()
        )
        rows = await session.execute(select(ServerRevision.server_id, ServerRevision.degraded))
        degraded = {server_id for server_id, entities in rows if entities}
        newest = select(Certificate.server_id, func.max(Certificate.expires_at)).where(Certificate.revoked_at.is_(None))
        ends = dict((await session.execute(newest.group_by(Certificate.server_id))).all())
    if not servers:
        return [warning("servers", "there is no server yet", "add one in the panel")]
    missing = [server.name for server in servers if server.status in UNWELL]
    online = sum(server.status == "online" for server in servers)
    told = (
        f"{online} of {len(servers)} online"
        if running
        else f"{len(servers)} known; who is online is told while it runs"
    )
    if missing and running:
        findings.append(
            warning("servers", f"{told}; not heard: {_names(missing)}", "look at the machine and its agent's log")
        )
    else:
        findings.append(ok("servers", told))
    if ill := [server.name for server in servers if server.id in degraded]:
        findings.append(warning("degraded", f"refused by Xray on {_names(ill)}", "the server's page names the entity"))
    if old := [server.name for server in servers if server.agent_version not in {"", own_version}]:
        findings.append(warning("agents", f"another release than {own_version} on {_names(old)}", "upgrade the agents"))
    for server in servers:
        ends_at = ends.get(server.id)
        if ends_at is not None and ends_at - now < EXPIRY_WARNING:
            advice = "is the agent online? It renews by itself; else make a new enrollment line"
            if ends_at <= now:
                findings.append(failed("agent-cert", f"{server.name}'s expired on {ends_at:%Y-%m-%d}", advice))
            else:
                findings.append(warning("agent-cert", f"{server.name}'s expires on {ends_at:%Y-%m-%d}", advice))
    return findings


def _names(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def check_authorities(keys: FleetKeys, now: datetime) -> Iterator[Finding]:
    """The certificates everything else hangs from."""
    yield expiry("fleet-ca", "the fleet's authority", x509.expires_at(keys.ca_pem), now)
    yield expiry("fleet-ca", "the issuing authority", x509.expires_at(keys.intermediate.certificate_pem), now)


async def check_broker(keys: FleetKeys, urls: tuple[str, ...], clock: Clock) -> list[Finding]:
    """Mutual TLS and sign-in as every part does it, then what stands there and what time it is there."""
    credentials = FleetIssuer(keys, clock).bus_credentials("ops-ro", f"doctor-{new_id()[:8]}", urls)
    async with BrokerLink(credentials, name="doctor") as link:
        try:
            await link.wait_connected(BROKER_TIMEOUT_S)
        except BrokerOutage:
            reason = link.last_error or "no answer"
            told = reason if reason.startswith(urls) else f"{', '.join(urls)}: {reason}"
            return [failed("broker", told, "start it, or check address and firewall")]
        findings = [ok("broker", f"{link.url} answers over TLS 1.3 with the fleet's certificate")]
        try:
            return [*findings, *await _look_at_streams(link, clock)]
        except BrokerOutage as outage:
            return [*findings, failed("streams", f"the broker does not tell: {outage}", "see its log")]


async def _look_at_streams(link: BrokerLink, clock: Clock) -> list[Finding]:
    findings: list[Finding] = []
    missing: list[str] = []
    for stream in STREAMS:
        info = await _ask(link, f"$JS.API.STREAM.INFO.{stream.name}")
        if info.error is not None:
            missing.append(stream.name)
        elif info.ts is not None and not findings:
            findings.append(_clock(clock.now(), info.ts))
    if missing:
        findings.append(failed("streams", f"missing: {', '.join(missing)}", "start the controller: it makes them"))
    else:
        findings.append(ok("streams", f"{len(STREAMS)} stand"))
    waiting = 0
    for consumer in CONSUMERS:
        info = await _ask(link, f"$JS.API.CONSUMER.INFO.{consumer.stream}.{consumer.durable}")
        waiting = max(waiting, info.num_pending if consumer.stream == "TRAFFIC" else 0)
    told = f"{waiting} batches wait for the ledger"
    if waiting > LAG_WARNING_COUNT:
        return [*findings, warning("lag", told, "is the controller running, is its database slow?")]
    return [*findings, ok("lag", told)]


async def _ask(link: BrokerLink, subject: str) -> _Info:
    answer = await link.request(subject, b"", timeout_s=BROKER_TIMEOUT_S)
    try:
        return msgspec.json.decode(answer.payload, type=_Info)
    except msgspec.MsgspecError as error:
        return _Info(error={"description": str(error)})


def _clock(ours: datetime, theirs: datetime) -> Finding:
    offset_s = abs((ours - theirs.astimezone(UTC)).total_seconds())
    told = f"{offset_s:.1f} s between this machine and the broker"
    if offset_s > CLOCK_FAILED_S:
        return failed("clock", told, "set the clocks: timedatectl set-ntp true")
    return (
        warning("clock", told, "set the clocks: timedatectl set-ntp true")
        if offset_s > CLOCK_WARNING_S
        else ok("clock", told)
    )


async def check_panel(settings: ControllerSettings, memory: Memory | None, *, running: bool) -> Finding:
    """Whether the panel says it is ready."""
    port = memory.panel_port if memory and memory.panel_port else settings.port
    path = f"{memory.base_path if memory else settings.prefix}/readyz"
    if not running:
        return failed("panel", "xfleet does not run here", "start it: xfleet up, or systemctl start xfleet")
    for tls in (False, True):
        try:
            async with asyncio.timeout(PANEL_TIMEOUT_S):
                status = await _status(port, path, tls=tls)
        except (OSError, TimeoutError, ValueError, EOFError):
            continue
        if status == OK:
            return ok("panel", f"answers on port {port}")
        return failed("panel", f"says on port {port} that it is not ready ({status})", "see controller.log")
    return failed("panel", f"does not answer on port {port}", "see controller.log in the data directory")


async def _status(port: int, path: str, *, tls: bool) -> int:
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # asks our own machine whether it lives, and tells it nothing
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode("ascii"))
        line = await reader.readuntil(b"\r\n")
        return int(line.split(b" ")[1])
    finally:
        writer.close()


def unreachable(error: DBAPIError) -> Finding:
    """A database that broke off in the middle of the questions."""
    return failed("database", str(error.orig).strip().splitlines()[0], "is it running, is the disk full?")
