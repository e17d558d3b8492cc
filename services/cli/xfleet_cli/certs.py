"""`xfleet certs check`: proves against the live broker that the right certificate is let in and no wrong one."""

import asyncio
import json
import ssl
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import click
import msgspec

from xfleet_cli.operator.access import Access, Desk, open_desk, read_access
from xfleet_cli.operator.common import as_json, with_credentials
from xfleet_cli.operator.show import carry_out, say_json, table
from xfleet_contracts.control import PROBE, ActorRequest, CertificateProbe, ProbeIdentity
from xfleet_contracts.errors import Refusal
from xfleet_runtime.broker import BrokerLink, BrokerOutage, Credentials, tls_context
from xfleet_runtime.clock import SystemClock
from xfleet_runtime.keys import x509

EXIT_FAILED = 1
DIAL_TIMEOUT_S = 5.0
SOON_DAYS = 30
Context = Callable[[], ssl.SSLContext]


class Proof(NamedTuple):
    """One thing that was tried."""

    broker: str
    tried: str
    wanted: str
    """accepted or refused."""
    found: str
    """accepted, refused, unreachable or untried."""
    said: str

    @property
    def holds(self) -> bool:
        """Whether it is as it should be."""
        return self.wanted == self.found


@click.group()
def certs() -> None:
    """Certificates of the fleet."""


@certs.command()
@as_json
@with_credentials
def check(path: Path, *, json_too: bool) -> None:
    """Try every broker with right and wrong certificates; exit code 1 unless each is met as it should be."""

    async def work() -> None:
        access = read_access(path)
        proofs = await prove(access)
        if json_too:
            for proof in proofs:
                say_json(proof._asdict() | {"holds": proof.holds})
        else:
            head = ("broker", "tried with", "should be", "is", "said")
            rows = [(*proof[:4], proof.said[:100]) for proof in proofs]
            click.echo("\n".join(table(head, rows)))
        wrong = [proof for proof in proofs if not proof.holds]
        if wrong:
            sys.stderr.write(f"xfleet: {len(wrong)} of {len(proofs)} are not as they should be (certs_wrong)\n")
            sys.exit(EXIT_FAILED)

    carry_out(work)


async def prove(access: Access) -> list[Proof]:
    """Everything that can be tried, broker by broker."""
    probe, reason = await _probe(access)
    proofs: list[Proof] = []
    for url in access.broker.urls:
        proofs += await _prove_handshakes(url, access.broker)
        proofs.append(await _prove_link(url, "our own certificate and token", "accepted", access.broker))
        for tried, wanted, identity in (
            ("a certificate made just now", "accepted", probe.good if probe else None),
            ("one that was revoked just now", "refused", probe.revoked if probe else None),
        ):
            if identity is None:
                proofs.append(Proof(url, tried, wanted, "untried", reason))
            else:
                proofs.append(await _prove_link(url, tried, wanted, _credentials(access.broker, identity)))
    return proofs


async def _probe(access: Access) -> tuple[CertificateProbe | None, str]:
    async def ask(desk: Desk) -> CertificateProbe:
        return await desk.ask(PROBE, ActorRequest(token=desk.token), CertificateProbe)

    try:
        async with open_desk(access) as desk:
            return await ask(desk), ""
    except Refusal as refusal:
        return None, refusal.text


async def _prove_handshakes(url: str, own: Credentials) -> list[Proof]:
    def without_certificate() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=own.ca_pem)
        return context

    def foreign() -> ssl.SSLContext:
        return tls_context(_with_foreign_certificate(own))

    def older() -> ssl.SSLContext:
        context = tls_context(own)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context

    tries: tuple[tuple[str, Context], ...] = (
        ("no certificate", without_certificate),
        ("a certificate of another authority", foreign),
        ("TLS 1.2", older),
    )
    proofs = [await _prove_handshake(url, tried, own.tls_name, context) for tried, context in tries]
    proofs.append(await _prove_name(url, own))
    return proofs


async def _prove_handshake(url: str, tried: str, tls_name: str, make: Context) -> Proof:
    """Refused means a word of TLS from the broker; a broker that is not there proves nothing."""
    try:
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            said = await _talk(url, make(), tls_name)
    except ssl.SSLError as error:
        return Proof(url, tried, "refused", "refused", str(error.reason or error))
    except ConnectionResetError as error:
        return Proof(url, tried, "refused", "refused", str(error))
    except (OSError, TimeoutError) as error:
        return Proof(url, tried, "refused", "unreachable", str(error) or "no answer in time")
    return Proof(url, tried, "refused", "accepted" if said else "refused", "" if said else "closed at once")


async def _prove_name(url: str, own: Credentials) -> Proof:
    """The broker shows a certificate of our authority under the fleet's name, and tells how long it lasts."""
    tried = "the broker's own certificate"
    try:
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            reader, writer = await _open(url, tls_context(own), own.tls_name)
    except (OSError, TimeoutError) as error:
        return Proof(url, tried, "accepted", "refused", str(error) or "no answer in time")
    del reader
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    ends_at = x509.expires_at(ssl.DER_cert_to_PEM_cert(shown))
    left = ends_at - SystemClock().now()
    said = f"{own.tls_name}, until {ends_at.astimezone(UTC):%Y-%m-%d}"
    return Proof(url, tried, "accepted", "accepted", said if left.days > SOON_DAYS else f"{said}: soon")


async def _prove_link(url: str, tried: str, wanted: str, credentials: Credentials) -> Proof:
    said, found = "", "accepted"
    credentials = msgspec.structs.replace(credentials, urls=(url,))
    async with BrokerLink(credentials, name="certs check", longest_wait_s=0.5) as link:
        try:
            await link.wait_connected(DIAL_TIMEOUT_S if wanted == "accepted" else DIAL_TIMEOUT_S / 2)
            await asyncio.sleep(0)
        except BrokerOutage as outage:
            said, found = str(outage), "refused" if link.refused else "unreachable"
        else:
            ends_at = datetime.fromtimestamp(credentials.expires_at, UTC)
            said = f"until {ends_at:%Y-%m-%d %H:%M} UTC"
    return Proof(url, tried, wanted, found, said.removeprefix(f"{url}: "))


async def _talk(url: str, context: ssl.SSLContext, tls_name: str) -> bytes:
    """What the broker says inside TLS; with TLS 1.3 a refused certificate is only told at the first read."""
    reader, writer = await _open(url, context, tls_name)
    try:
        if url.startswith("wss:"):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        else:
            writer.write(b"PING\r\n")
        return await reader.read(1)
    finally:
        writer.transport.abort()


async def _open(url: str, context: ssl.SSLContext, tls_name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = url.partition("://")[2].partition("/")[0].rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        if not url.startswith("wss:"):
            json.loads((await reader.readline()).partition(b" ")[2])
        await writer.start_tls(context, server_hostname=tls_name)
    except BaseException as error:
        writer.transport.abort()
        if isinstance(error, ValueError):
            raise ConnectionError("no broker listens there") from error
        raise
    return reader, writer


def _with_foreign_certificate(own: Credentials) -> Credentials:
    """Our names and token with a certificate of an authority made up just now."""
    now = SystemClock().now()
    authority = x509.create_root("somebody else", now=now, lifetime=x509.lifetime(own.cert_pem))
    leaf = x509.issue_leaf(
        authority, x509.common_name(own.cert_pem), x509.Purpose.CLIENT, now=now, lifetime=x509.lifetime(own.cert_pem)
    )
    return msgspec.structs.replace(own, cert_pem=leaf.chain_pem, key_pem=leaf.key_pem)


def _credentials(own: Credentials, identity: ProbeIdentity) -> Credentials:
    return msgspec.structs.replace(
        own,
        cert_pem=identity.cert_pem,
        key_pem=identity.key_pem,
        jwt=identity.jwt,
        seed=identity.seed,
        inbox_prefix=identity.inbox_prefix,
    )
