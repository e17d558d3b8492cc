"""A real broker with a fleet of its own, for tests: start it, take credentials of any role, be an agent."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from nats.aio.client import Client

from xfleet_contracts.enrollment import AgentIdentity, Manifest
from xfleet_nats.fleet import FIRST_CONTROLLER, FleetIssuer, FleetKeys, FleetRoot, create_fleet
from xfleet_nats.jetstream import ensure_streams
from xfleet_nats.process import BrokerProcess
from xfleet_nats.render import BrokerSettings, WebsocketSettings, render_broker
from xfleet_runtime.broker import BrokerLink, Credentials, tls_context
from xfleet_runtime.broker.credentials import NonceSigner
from xfleet_runtime.keys import signing, x509
from xfleet_runtime.keys.nkeys import KeyPair, Kind

WAIT_S = 10.0
T = TypeVar("T")


async def eventually(
    condition: Callable[[], T | Awaitable[T]], *, within_s: float = WAIT_S, every_s: float = 0.02
) -> T:
    """Waits until the condition, plain or async, holds and returns its value; fails after `within_s`."""
    try:
        async with asyncio.timeout(within_s):
            while True:
                value = condition()
                if isinstance(value, Awaitable):
                    value = await value
                if value:
                    return value
                await asyncio.sleep(every_s)
    except TimeoutError:
        raise AssertionError(f"not within {within_s:g} s: {condition}") from None


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, for what cannot choose its own."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@dataclass
class FleetBroker:
    """A running broker and the keys of its fleet."""

    root: FleetRoot
    keys: FleetKeys
    settings: BrokerSettings
    process: BrokerProcess
    issuer: FleetIssuer

    @property
    def urls(self) -> tuple[str, ...]:
        return (self.process.url,)

    def credentials(self, role: str, name: str) -> Credentials:
        """New credentials of that role, as any service would get them."""
        return self.issuer.bus_credentials(role, name, self.urls)

    def link(self, role: str, name: str) -> BrokerLink:
        """A link of that role; use with `async with`, then `wait_connected`."""
        return BrokerLink(self.credentials(role, name), name=f"{role} {name}", longest_wait_s=0.5)

    def manifest(self, serial: int = 1) -> Manifest:
        """A manifest naming the first controller's command key."""
        return Manifest(
            fleet_id=self.keys.fleet_id,
            serial=serial,
            issued_at_ms=0,
            command_keys=(signing.command_key(self.keys.command_key(FIRST_CONTROLLER)),),
            ca_pem=self.keys.ca_pem,
            broker_urls=self.urls,
            tls_name=self.keys.tls_name,
        )

    def agent_identity(self, sid: str) -> AgentIdentity:
        """What an agent of that server holds after enrollment, without the enrollment."""
        pair, key_pem = KeyPair.generate(Kind.USER), x509.generate_key_pem()
        token, certificate = self.issuer.issue_agent(sid, pair.public, x509.request_pem(key_pem))
        return AgentIdentity(
            sid=sid,
            root_public_key=self.keys.root_public,
            nkey_seed=pair.seed,
            jwt=token,
            key_pem=key_pem,
            cert_pem=certificate,
            manifest=signing.sign_manifest(self.root.manifest_key, self.manifest()),
        )

    async def restart(self) -> None:
        """Starts the broker again on the same port, over what its directory holds."""
        await self.process.stop()
        self.settings = msgspec.structs.replace(self.settings, port=self.process.port)
        render_broker(self.settings, self.issuer)
        self.process = BrokerProcess(self.settings)
        await self.process.start()


@asynccontextmanager
async def running_broker(
    directory: Path, *, fleet_id: str = "test", streams: bool = False, websocket: bool = False
) -> AsyncIterator[FleetBroker]:
    """A broker with the shipped configuration on a free port; with `streams`, those of the contracts exist."""
    root, keys = create_fleet(fleet_id)
    issuer = FleetIssuer(keys)
    listener = WebsocketSettings(port=0) if websocket else None
    settings = BrokerSettings(directory=directory / "broker", port=0, websocket=listener)
    render_broker(settings, issuer)
    process = BrokerProcess(settings)
    await process.start()
    broker = FleetBroker(root, keys, settings, process, issuer)
    try:
        if streams:
            async with broker.link("ctl", "harness") as link:
                await link.wait_connected(WAIT_S)
                await ensure_streams(link.js)
        yield broker
    finally:
        await broker.process.stop()


@dataclass
class Attacker:
    """A bare client that does what it likes and records what the broker says to that."""

    client: Client
    errors: list[str] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def said_to(self, deed: Awaitable[Any]) -> str:
        """What the broker says after this deed; empty when it let it pass."""
        before = len(self.errors)
        await deed
        await self.settle()
        return " ".join(self.errors[before:])

    async def settle(self) -> None:
        """Waits for the broker's say on everything sent; twice, for nats-py lets a flush overtake what it queued."""
        if self.client.is_connected:
            await self.client.flush()
        if self.client.is_connected:
            await self.client.flush()

    async def may_publish(self, subject: str, payload: bytes = b"", **more: object) -> bool:
        return "permissions violation" not in await self.said_to(self.client.publish(subject, payload, **more))

    async def may_subscribe(self, subject: str, queue: str = "") -> bool:
        return "permissions violation" not in await self.said_to(self.client.subscribe(subject, queue=queue))


@asynccontextmanager
async def attacker(credentials: Credentials, **overrides: object) -> AsyncIterator[Attacker]:
    """A bare nats-py client with these credentials, never reconnecting; raises what connecting raises."""
    client = Client()
    self = Attacker(client)

    async def on_error(error: Exception) -> None:
        self.errors.append(str(error).lower())

    async def on_closed() -> None:
        self.closed.set()

    signer = NonceSigner(credentials)
    options: dict[str, Any] = {
        "servers": list(credentials.urls),
        "allow_reconnect": False,
        "max_reconnect_attempts": 1,
        "reconnect_time_wait": 0,
        "connect_timeout": 3,
        "tls": tls_context(credentials),
        "tls_hostname": credentials.tls_name,
        "user_jwt_cb": signer.user_jwt,
        "signature_cb": signer.sign,
        "inbox_prefix": credentials.inbox_prefix,
        "error_cb": on_error,
        "closed_cb": on_closed,
    }
    try:
        await client.connect(**{**options, **overrides})
        if not client.is_connected:
            raise ConnectionError("closed during the handshake")
        await client.flush()
        yield self
    finally:
        with suppress(TimeoutError):  # nats-py waits for ever when the TLS handshake failed
            await asyncio.wait_for(client.close(), 0.3)
