"""A whole controller on a real broker, and an agent in a few lines that enrolls and applies by contract."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import select

from harness.broker import eventually
from harness.controller import PASSWORD, make_beat, open_api
from xfleet_contracts import codec, streams, subjects
from xfleet_contracts.apply import APPLY, BASE_MISMATCH, ApplyOrder, ApplyReport, ChunkRequest, Degraded
from xfleet_contracts.care import STATE_READ, StateHeld, StateRead
from xfleet_contracts.commands import SIGNATURE_HEADER, UNKNOWN_VERB, Command, Reply
from xfleet_contracts.desired_state import (
    Difference,
    Entity,
    EntityKey,
    SnapshotChunk,
    StatePoint,
    applied_to,
    digest_of,
)
from xfleet_contracts.enrollment import AgentIdentity, EnrollAnswer, EnrollmentToken, EnrollRequest
from xfleet_contracts.errors import ErrorBody, Refusal
from xfleet_contracts.events import FleetEvent
from xfleet_controller.app import Controller, open_controller
from xfleet_controller.config import ControllerSettings
from xfleet_controller.fleet.keyring import find_root
from xfleet_controller.fleet.models import Certificate
from xfleet_controller.init import Initialized, InitOrder, initialize
from xfleet_controller.servers.models import Server
from xfleet_nats.fleet import FleetIssuer
from xfleet_nats.process import BrokerProcess
from xfleet_nats.render import BrokerSettings
from xfleet_runtime.broker import BrokerLink, Credentials, Incoming
from xfleet_runtime.clock import FakeClock
from xfleet_runtime.keys import signing, x509
from xfleet_runtime.keys.nkeys import KeyPair, Kind

Verb = Callable[[Command], Awaitable[Any]]
"""Gives an answer's message, a whole `Reply`, bare bytes, or None for silence; a `Refusal` is told as one."""


@dataclass
class World:
    """A controller that runs, its broker and what `init` answered."""

    settings: ControllerSettings
    broker: BrokerProcess
    made: Initialized
    controller: Controller = field(init=False)

    def token(self) -> EnrollmentToken:
        """The local server's enrollment token, with the broker's real address."""
        text = Path(self.made.enroll_token_file or "").read_text().strip()
        token = open_token(text)
        return msgspec.structs.replace(token, broker_urls=(self.broker.url,))


def open_token(line: str) -> EnrollmentToken:
    """What a pasted line holds."""
    return msgspec.json.decode(base64.urlsafe_b64decode(line + "=" * (-len(line) % 4)), type=EnrollmentToken)


@asynccontextmanager
async def running_world(data_dir: Path, **settings: Any) -> AsyncIterator[World]:
    """`init`, a broker on a free port, and the controller's loops; no web server."""
    async with stopped_world(data_dir, **settings) as world, open_controller(world.settings) as controller:
        for link in controller.bus.all:
            await link.wait_connected(10)
        world.controller = controller
        yield world


@asynccontextmanager
async def stopped_world(data_dir: Path, *, broker_port: int = 0, **settings: Any) -> AsyncIterator[World]:
    """`init` and a broker; whoever wants a controller, or one after the other, opens it and sets it.

    A real agent needs a `broker_port` that was free: its manifest names it.
    """
    chosen = ControllerSettings(data_dir=data_dir, admin_password=PASSWORD, **settings)
    made = await initialize(chosen, InitOrder(local_agent=True, broker_port=broker_port))
    broker = BrokerProcess(BrokerSettings(directory=chosen.broker_dir, port=broker_port))
    await broker.start()
    try:
        yield World(msgspec.structs.replace(chosen, broker_url=broker.url), broker, made)
    finally:
        await broker.stop()


@asynccontextmanager
async def api_of(world: World) -> AsyncIterator[Any]:
    """A signed-in client of the world's API."""
    async with open_api(world.controller.context) as api:
        answer = await api.post("/api/v1/session", json={"username": "admin", "password": PASSWORD})
        api.headers["authorization"] = f"Bearer {answer.json()['token']}"
        yield api


def token_credentials(token: EnrollmentToken) -> Credentials:
    """The credentials inside a token."""
    return Credentials(
        urls=token.broker_urls,
        ca_pem=token.ca_pem,
        cert_pem=token.cert_pem,
        key_pem=token.key_pem,
        jwt=token.jwt,
        seed=token.seed,
        tls_name=token.tls_name,
        inbox_prefix=subjects.enroll_inbox(token.token_id),
    )


@dataclass
class Keys:
    """What an agent makes for itself."""

    pair: KeyPair = field(default_factory=lambda: KeyPair.generate(Kind.USER))
    key_pem: str = field(default_factory=x509.generate_key_pem)
    csr_pem: str = ""

    def __post_init__(self) -> None:
        self.csr_pem = self.csr_pem or x509.request_pem(self.key_pem)


async def ask_enrollment(token: EnrollmentToken, keys: Keys) -> Reply:
    """The desk's answer to these keys."""
    async with BrokerLink(token_credentials(token), name="enrolling", longest_wait_s=0.2) as link:
        await link.wait_connected(5)
        request = EnrollRequest(nkey=keys.pair.public, csr_pem=keys.csr_pem, hostname="box")
        answer = await link.request(subjects.enroll(token.token_id), codec.encode(request), timeout_s=5)
        return codec.decode(answer.payload, Reply)


@dataclass
class SmallAgent:
    """Enrolled; holds wanted state in memory, refuses what it is told to refuse."""

    answer: EnrollAnswer
    keys: Keys
    link: BrokerLink
    trusted: dict[str, bytes]
    bodies: dict[EntityKey, bytes] = field(default_factory=dict[EntityKey, bytes])
    point: StatePoint = field(default_factory=StatePoint)
    orders: list[ApplyOrder] = field(default_factory=list[ApplyOrder])
    degraded: tuple[Degraded, ...] = ()
    refusal: ErrorBody | None = None
    silent: bool = False
    knows_reading: bool = True
    """Whether it is of a release that has `state.read`."""
    garbage: bytes = b""
    """Its answer to every order, instead of a reply."""
    seq: int = 0
    instance: str = "i1"
    heard: list[str] = field(default_factory=list[str])
    order_ids: list[str] = field(default_factory=list[str])
    verbs: dict[str, Verb] = field(default_factory=dict[str, Verb])
    """How it answers verbs other than `state.apply`; None for no answer."""
    commands: list[Command] = field(default_factory=list[Command])
    """All it was told beside `state.apply`, in order."""

    @property
    def sid(self) -> str:
        return self.answer.sid

    async def beat(self, **more: Any) -> None:
        """Tells where it is."""
        self.seq += 1
        fields = {
            "wanted_revision": self.point.revision, "wanted_digest": self.point.digest, "manifest_serial": 10**6,
        } | more  # fmt: skip
        fields.setdefault("applied_revision", fields["wanted_revision"])
        beat = make_beat(self.seq, instance=self.instance, **fields)
        await self.link.publish(subjects.heartbeat(self.sid), codec.encode(beat))

    async def call(self, method: str, body: Any) -> Reply:
        """The controller's answer, its signature checked as agents do."""
        subject, question = subjects.call(self.sid, method), codec.encode(body)
        answer = await self.link.request(subject, question, timeout_s=5)
        asked = signing.Asked(reply=answer.subject, subject=subject, question=question)
        signing.verify_answer(self.trusted, answer.headers.get(SIGNATURE_HEADER), asked, answer.payload)
        return codec.decode(answer.payload, Reply)

    async def on_command(self, message: Incoming) -> None:
        """Checks the signature as agents do, then applies."""
        verb = subjects.tail_of(message.subject)
        signing.verify_command(self.trusted, message.headers.get(SIGNATURE_HEADER), message.subject, message.payload)
        command = codec.decode(message.payload, Command)
        self.heard.append(verb)
        if verb != APPLY:
            self.commands.append(command)
        if verb == STATE_READ and verb not in self.verbs:
            await self.link.publish(message.reply, codec.encode(self._state_page(command)))
            return
        if verb in self.verbs:
            await self._carry_out(verb, command, message)
            return
        if verb != APPLY or self.silent:
            return
        self.order_ids.append(command.id)
        if self.garbage:
            await self.link.publish(message.reply, self.garbage)
            return
        reply = await self._apply(command)
        await self.link.publish(message.reply, codec.encode(reply))

    def _state_page(self, command: Command) -> Reply:
        """Its state in pages of two."""
        if not self.knows_reading:
            return Reply(ok=False, error=ErrorBody(code=UNKNOWN_VERB, message="No such verb."))
        asked = msgspec.json.decode(command.body, type=StateRead)
        keys = sorted(self.bodies)
        page = tuple(
            Entity(kind=key.kind, id=key.id, body=msgspec.Raw(self.bodies[key]))
            for key in keys[asked.offset : asked.offset + 2]
        )
        held = StateHeld(point=self.point, entities=page, total_count=len(keys))
        return Reply(ok=True, data=msgspec.Raw(codec.encode(held)))

    async def _carry_out(self, verb: str, command: Command, message: Incoming) -> None:
        try:
            answer = await self.verbs[verb](command)
        except Refusal as refusal:
            answer = Reply(ok=False, error=refusal.body())
        if answer is None:
            return
        if isinstance(answer, bytes):  # past the runtime's own limit of size, as a hostile agent would
            await self.link._current().publish(message.reply, answer, "", None)
            return
        reply = answer if isinstance(answer, Reply) else Reply(ok=True, data=msgspec.Raw(codec.canonical(answer)))
        await self.link.publish(message.reply, codec.encode(reply))

    async def _apply(self, command: Command) -> Reply:
        if command.instance != self.instance:
            details = {"instance": self.instance}
            return Reply(ok=False, error=ErrorBody(code="instance", message="another process", details=details))
        if self.refusal is not None:
            return Reply(ok=False, error=self.refusal)
        order = msgspec.json.decode(command.body, type=ApplyOrder)
        self.orders.append(order)
        if order.difference is not None:
            if order.difference.base != self.point:
                here = msgspec.to_builtins(self.point)
                return Reply(ok=False, error=ErrorBody(code=BASE_MISMATCH, message="elsewhere", details=here))
            after, target = (
                applied_to(self.bodies, order.difference.put, order.difference.remove),
                order.difference.target,
            )
        else:
            assert order.snapshot is not None
            after, target = await self._snapshot(order.snapshot.chunks), order.snapshot.target
        assert digest_of(after) == target.digest or order.difference == Difference(base=target, target=target)
        self.bodies, self.point = after, target
        report = ApplyReport(point=target, applied_revision=target.revision, degraded=self.degraded)
        return Reply(ok=True, data=msgspec.Raw(codec.encode(report)))

    async def _snapshot(self, chunks: tuple[str, ...]) -> dict[EntityKey, bytes]:
        found: dict[EntityKey, bytes] = {}
        for chunk in chunks:
            reply = await self.call("state", ChunkRequest(revision=0, chunk=chunk))
            assert reply.ok, reply.error
            assert codec.sha256_hex(bytes(reply.data)) == chunk
            part = msgspec.json.decode(reply.data, type=SnapshotChunk)
            found |= {each.key: bytes(each.body) for each in part.entities}
        return found


@asynccontextmanager
async def small_agent(
    world: World, keys: Keys | None = None, token: EnrollmentToken | None = None
) -> AsyncIterator[SmallAgent]:
    """Enrolls over the bus, connects under its own identity and listens to its commands."""
    keys, token = keys or Keys(), token or world.token()
    reply = await ask_enrollment(token, keys)
    assert reply.ok, reply.error
    answer = msgspec.json.decode(reply.data, type=EnrollAnswer)
    manifest = signing.open_manifest(token.root_public_key, answer.manifest)
    credentials = Credentials(
        urls=token.broker_urls,
        ca_pem=manifest.ca_pem,
        cert_pem=answer.cert_pem,
        key_pem=keys.key_pem,
        jwt=answer.jwt,
        seed=keys.pair.seed,
        tls_name=manifest.tls_name,
        inbox_prefix=subjects.agent_inbox(answer.sid),
    )
    async with BrokerLink(credentials, name="agent", longest_wait_s=0.3) as link:
        await link.wait_connected(5)
        agent = SmallAgent(answer, keys, link, signing.trusted_keys(manifest))
        await link.subscribe(subjects.commands(answer.sid), agent.on_command, workers=4)
        await agent.beat()
        yield agent


async def beating(agent: SmallAgent, condition: Any, *, within_s: float = 10.0) -> Any:
    """Waits for the condition while the agent goes on beating."""

    async def beat() -> None:
        while True:
            await agent.beat()
            await asyncio.sleep(0.5)

    task = asyncio.ensure_future(beat())
    try:
        return await eventually(condition, within_s=within_s)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def events_of(world: World) -> list[FleetEvent]:
    """What is in the stream of events."""
    js = world.controller.bus.commands.js
    info = await js.stream_info(streams.EVENTS.name)
    found = [await js.get_msg(streams.EVENTS.name, seq) for seq in range(1, info.state.messages + 1)]
    return [codec.decode(message.data or b"", FleetEvent) for message in found]


async def issued_identity(world: World, sid: str, *, lived: timedelta = timedelta(0)) -> AgentIdentity:
    """What an agent of that server holds that was enrolled this long ago; the controller knows of it."""
    controller = world.controller
    fleet = controller.context.fleet
    assert fleet is not None
    keys, issued_at = Keys(), controller.context.clock.now() - lived
    issuer = FleetIssuer(fleet.issuer.keys, FakeClock(issued_at))
    jwt, cert_pem = issuer.issue_agent(sid, keys.pair.public, keys.csr_pem)
    async with controller.context.database.write() as session:
        server = await session.scalar(select(Server).where(Server.slug == sid))
        assert server is not None
        session.add(
            Certificate(
                server_id=server.id,
                common_name=sid,
                serial_number=x509.fingerprint(cert_pem)[:64],
                nkey=keys.pair.public,
                pem_certificate=cert_pem,
                issued_at=issued_at,
                expires_at=x509.expires_at(cert_pem),
            )
        )
    return AgentIdentity(
        sid=sid,
        root_public_key=fleet.issuer.keys.root_public,
        nkey_seed=keys.pair.seed,
        jwt=jwt,
        key_pem=keys.key_pem,
        cert_pem=cert_pem,
        manifest=fleet.manifest,
    )


def tell_manifest(world: World, **changes: Any) -> None:
    """Signs a manifest with these changes, as if an operator had made them; those enrolled from now on get it."""
    fleet = world.controller.context.fleet
    assert fleet is not None
    root = find_root(world.settings.root_file)
    assert root is not None
    current = signing.open_manifest(root.manifest_key.public, fleet.manifest)
    changed = msgspec.structs.replace(current, serial=current.serial + 1, **changes)
    fleet.manifest = signing.sign_manifest(root.manifest_key, changed)
