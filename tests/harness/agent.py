"""A real agent process for tests, and the small controller that speaks to it by contract over the real broker."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from harness.broker import FleetBroker, eventually
from xfleet_agent.app import run_directory
from xfleet_contracts import codec, streams, subjects
from xfleet_contracts.allowance import ALLOWANCE, Allowances
from xfleet_contracts.apply import APPLY, ApplyOrder, ApplyReport
from xfleet_contracts.care import BLOB_PART_BYTES, BlobAsk, BlobPart, RestoreOrder
from xfleet_contracts.commands import SIGNATURE_HEADER, Command, Reply
from xfleet_contracts.desired_state import (
    ClientBody,
    Difference,
    Entity,
    EntityKey,
    InboundBody,
    OutboundBody,
    SettingsBody,
    SnapshotChunk,
    SnapshotManifest,
    StatePoint,
    difference_of,
    digest_of,
)
from xfleet_contracts.enrollment import AgentIdentity, EnrollAnswer, EnrollRequest
from xfleet_contracts.errors import RemoteRefusal
from xfleet_contracts.events import AgentEvent
from xfleet_contracts.heartbeat import Heartbeat
from xfleet_contracts.message import Message
from xfleet_contracts.receipt import FORK, RECEIPT, Fork, Receipt
from xfleet_contracts.traffic import (
    Batch,
    BatchName,
    BatchRequest,
    EpochMark,
    Gap,
    LedgerAnswer,
    LedgerQuery,
)
from xfleet_nats.fleet import FIRST_CONTROLLER
from xfleet_runtime.broker import BrokerLink, BrokerOutage, Incoming
from xfleet_runtime.ids import new_id
from xfleet_runtime.keys.signing import Asked, SigningKey, sign_answer, sign_command, sign_manifest
from xfleet_xraykit.process import StartedXray, boot_id, start_time_ticks, stop

T = TypeVar("T")
SLUG = "srv1"
COMMAND_LIFE_MS = 30_000


class ModelLedger:
    """The ledger's rules in a few lines: exact keys, contiguous floors, forks kept apart."""

    def __init__(self) -> None:
        self.bodies: dict[tuple[str, int], bytes] = {}
        self.floors: dict[str, int] = {}
        self.forks: list[Fork] = []
        self.gaps: list[Gap] = []

    def take(self, payload: bytes) -> Fork | None:
        """Commits a batch once; a fork is answered and not counted."""
        batch = codec.decode(payload, Batch)
        key, digest = (batch.epoch, batch.seq), codec.sha256_hex(payload)
        if key in self.bodies:
            known = codec.sha256_hex(self.bodies[key])
            if known == digest:
                return None
            fork = Fork(epoch=batch.epoch, seq=batch.seq, committed_digest=known, refused_digest=digest)
            self.forks.append(fork)
            return fork
        self.bodies[key] = payload
        self.gaps.extend(batch.gaps)
        while (batch.epoch, self.floors.get(batch.epoch, 0) + 1) in self.bodies:
            self.floors[batch.epoch] = self.floors.get(batch.epoch, 0) + 1
        return None

    def receipts(self) -> list[Receipt]:
        """Every epoch's receipt."""
        return [
            Receipt(epoch=epoch, committed_through=floor, digest=codec.sha256_hex(self.bodies[epoch, floor]))
            for epoch, floor in self.floors.items()
        ]

    def answer(self, query: LedgerQuery, *, pending_count: int = 0) -> LedgerAnswer:
        """What the ledger says to this."""
        known = {mark.epoch: mark.through for mark in query.known}
        epochs = set(known) | set(self.floors)
        committed = tuple(
            EpochMark(
                epoch=epoch,
                through=(floor := self.floors.get(epoch, 0)),
                digest=codec.sha256_hex(self.bodies[epoch, floor]) if floor else "",
            )
            for epoch in sorted(epochs)
        )
        foreign = tuple(
            BatchName(epoch=epoch, seq=seq, digest=codec.sha256_hex(payload))
            for (epoch, seq), payload in sorted(self.bodies.items())
            if seq > known.get(epoch, 0) and codec.decode(payload, Batch).start_id in query.starts
        )
        return LedgerAnswer(pending_count=pending_count, committed=committed, foreign=foreign)

    def totals(self) -> dict[tuple[int, int], tuple[int, int]]:
        """(client, inbound) to (up, down) bytes."""
        found: dict[tuple[int, int], tuple[int, int]] = {}
        for payload in self.bodies.values():
            for row in codec.decode(payload, Batch).clients:
                up, down = found.get((row.client, row.inbound), (0, 0))
                found[row.client, row.inbound] = (up + row.up_bytes, down + row.down_bytes)
        return found

    def of_client(self, client: int) -> tuple[int, int]:
        """(up, down) of one client over all inbounds."""
        rows = [moved for (each, _), moved in self.totals().items() if each == client]
        return sum(up for up, _ in rows), sum(down for _, down in rows)


@dataclass
class SmallController:
    """Commands one agent, keeps its ledger, and hears its heartbeats and events."""

    broker: FleetBroker
    ctl: BrokerLink
    rpc: BrokerLink
    sid: str = SLUG
    ledger: ModelLedger = field(default_factory=ModelLedger)
    beats: list[Heartbeat] = field(default_factory=list)
    events: list[AgentEvent] = field(default_factory=list)
    point: StatePoint = field(default_factory=StatePoint)
    state: dict[EntityKey, bytes] = field(default_factory=dict)
    chunks: dict[str, bytes] = field(default_factory=dict)
    receipts_on: bool = True
    forging: bool = False
    """Answers calls under a key that no manifest names, as a hostile broker would."""
    blobs: dict[str, dict[int, bytes]] = field(default_factory=dict)
    """Parts by transfer: what agents sent, and what they may fetch."""
    lose_acks: int = 0
    """So many parts of blobs are taken without a word."""
    stopping: bool = False
    """nats-py may swallow a cancellation, so the loop ends by this."""
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def running(cls, broker: FleetBroker, ledger: ModelLedger | None = None) -> AsyncIterator["SmallController"]:
        """A controller with its two links."""
        async with broker.link("ctl", "controller") as ctl, broker.link("rpc", "controller") as rpc:
            await ctl.wait_connected(10)
            await rpc.wait_connected(10)
            self = cls(broker, ctl, rpc, ledger=ledger or ModelLedger())
            await ctl.subscribe(subjects.ALL_HEARTBEATS, self._on_beat)
            await ctl.subscribe(subjects.ALL_AGENT_EVENTS, self._on_event)
            await rpc.subscribe(subjects.ALL_AGENT_CALLS, self._on_call)
            await rpc.subscribe(subjects.blob("*", "*"), self._on_blob)
            self._tasks.append(asyncio.create_task(self._ingest()))
            try:
                yield self
            finally:
                self.stopping = True
                await asyncio.gather(*self._tasks, return_exceptions=True)

    # What it hears

    async def _on_beat(self, message: Incoming) -> None:
        self.beats.append(codec.decode(message.payload, Heartbeat))

    async def _on_event(self, message: Incoming) -> None:
        self.events.append(codec.decode(message.payload, AgentEvent))

    async def _on_blob(self, message: Incoming) -> None:
        transfer = subjects.tail_of(message.subject).partition(".")[2]
        part = codec.decode(message.payload, BlobPart)
        self.blobs.setdefault(transfer, {})[part.index] = part.data
        if self.lose_acks:
            self.lose_acks -= 1
            return
        within = subjects.agent_inbox(subjects.sid_of(message.subject))
        await self.rpc.respond(message, codec.encode(Reply(ok=True)), within=within)

    def received(self, transfer: str) -> bytes:
        """A blob, put together."""
        return b"".join(data for _, data in sorted(self.blobs[transfer].items()))

    def offers(self, transfer: str, data: bytes) -> RestoreOrder:
        """Makes a blob ready to be fetched; the order for it."""
        parts = [data[at : at + BLOB_PART_BYTES] for at in range(0, len(data), BLOB_PART_BYTES)]
        self.blobs[transfer] = dict(enumerate(parts))
        return RestoreOrder(
            transfer=transfer, size_bytes=len(data), sha256=codec.sha256_hex(data), parts_count=len(parts)
        )

    async def _on_call(self, message: Incoming) -> None:
        method = subjects.tail_of(message.subject)
        if method == "ledger":
            query = codec.decode(message.payload, LedgerQuery)
            answer = _good(self.ledger.answer(query, pending_count=await self._pending_count()))
        elif method == "ledger_batch":
            asked = codec.decode(message.payload, BatchRequest)
            answer = self.ledger.bodies[asked.epoch, asked.seq]
        elif method == "renew":
            request = codec.decode(message.payload, EnrollRequest)
            sid = subjects.sid_of(message.subject)
            jwt, cert_pem = self.broker.issuer.issue_agent(sid, request.nkey, request.csr_pem)
            manifest = sign_manifest(self.broker.root.manifest_key, self.broker.manifest())
            answer = _good(EnrollAnswer(sid=sid, jwt=jwt, cert_pem=cert_pem, manifest=manifest))
        elif method == "state":
            chunk = msgspec.json.decode(message.payload)["chunk"]
            answer = codec.encode(Reply(ok=True, data=msgspec.Raw(self.chunks[chunk])))
        elif method == "blob":
            wanted = codec.decode(message.payload, BlobAsk)
            parts = self.blobs[wanted.transfer]
            answer = _good(BlobPart(index=wanted.index, parts_count=len(parts), data=parts[wanted.index]))
        else:
            return
        asked = Asked(reply=message.reply, subject=message.subject, question=message.payload)
        key = SigningKey.generate() if self.forging else self.broker.keys.command_key()
        headers = {SIGNATURE_HEADER: sign_answer(key, asked, answer)}
        within = subjects.agent_inbox(subjects.sid_of(message.subject))
        await self.rpc.respond(message, answer, within=within, headers=headers)

    async def _pending_count(self) -> int:
        info = await self.ctl.js.stream_info(streams.TRAFFIC.name)
        return int(info.state.messages)

    async def _ingest(self) -> None:
        while not self.stopping:
            try:
                await self.ctl.wait_connected(0.5)
                pull = await self.ctl.js.pull_subscribe_bind("ledger", stream=streams.TRAFFIC.name)
                try:
                    await self._fetch_for_ever(pull)
                finally:
                    with suppress(Exception):
                        await pull.unsubscribe()
            except Exception as error:  # noqa: BLE001  a lost broker is part of the tests
                sys.stderr.write(f"small controller: {error!r}\n")
                await asyncio.sleep(0.2)

    async def _fetch_for_ever(self, pull: Any) -> None:
        while not self.stopping:
            try:
                messages = await pull.fetch(32, timeout=0.2)
            except TimeoutError:
                continue
            for message in messages:
                fork = self.ledger.take(message.data)
                await message.ack()
                if fork is not None:
                    await self.send(FORK, fork)
            await self.send_receipts()

    async def send_receipts(self) -> None:
        """What is committed, to the agent."""
        if self.receipts_on:
            for receipt in self.ledger.receipts():
                await self.send(RECEIPT, receipt)

    # What it says

    def signed(self, verb: str, body: Any, /, **overrides: Any) -> tuple[str, bytes, dict[str, str]]:
        """Subject, payload and headers of a signed command."""
        now_ms = _now_ms()
        envelope = {
            "id": new_id(),
            "sid": self.sid,
            "verb": verb,
            "instance": self.beats[-1].instance if self.beats else "",
            "issued_at_ms": now_ms,
            "expires_at_ms": now_ms + COMMAND_LIFE_MS,
            "body": msgspec.Raw(codec.canonical(body)),
        } | overrides
        payload = codec.encode(Command(**envelope))
        subject = subjects.command(self.sid, verb)
        key = self.broker.keys.command_key(FIRST_CONTROLLER)
        return subject, payload, {SIGNATURE_HEADER: sign_command(key, subject, payload)}

    async def send(self, verb: str, body: Message) -> None:
        """An unreplied command."""
        subject, payload, headers = self.signed(verb, body, instance="")
        await self.ctl.publish(subject, payload, headers=headers)

    async def ask(self, verb: str, body: Any = None, *, timeout_s: float = 20.0, **overrides: Any) -> Reply:
        """A command's reply; asked again once with the right instance, as a controller does."""
        if not self.beats:
            await self.heard()
        subject, payload, headers = self.signed(verb, body or {}, **overrides)
        answer = await self.ctl.request(subject, payload, timeout_s=timeout_s, headers=headers)
        reply = codec.decode(answer.payload, Reply)
        if reply.error is not None and reply.error.code == "instance" and "instance" not in overrides:
            overrides = overrides | {"instance": reply.error.details["instance"]}
            return await self.ask(verb, body, timeout_s=timeout_s, **overrides)
        return reply

    async def order(self, verb: str, kind: type[T], body: Any = None, **overrides: Any) -> T:
        """The data of a command's reply; raises `RemoteRefusal`."""
        reply = await self.ask(verb, body, **overrides)
        if reply.error is not None:
            raise RemoteRefusal(reply.error)
        return codec.decode(bytes(reply.data), kind)

    async def heard(self, *, within_s: float = 15.0) -> Heartbeat:
        """A heartbeat that comes after now."""
        count = len(self.beats)
        await eventually(lambda: len(self.beats) > count, within_s=within_s)
        return self.beats[-1]

    async def apply(self, new: Mapping[EntityKey, bytes]) -> ApplyReport:
        """Makes this the agent's wanted state by a difference."""
        difference = difference_of(
            self.state, new, base_revision=self.point.revision, target_revision=self.point.revision + 1
        )
        return await self.apply_difference(difference, new)

    async def apply_difference(self, difference: Difference, new: Mapping[EntityKey, bytes]) -> ApplyReport:
        report = await self.order(APPLY, ApplyReport, ApplyOrder(difference=difference))
        self.state, self.point = dict(new), difference.target
        return report

    async def apply_snapshot(self, new: Mapping[EntityKey, bytes], revision: int) -> ApplyReport:
        """Makes this the agent's wanted state by a snapshot in chunks of two entities."""
        keys = sorted(new)
        names: list[str] = []
        for start in range(0, len(keys), 2):
            entities = tuple(
                Entity(kind=key.kind, id=key.id, body=msgspec.Raw(new[key])) for key in keys[start : start + 2]
            )
            chunk = codec.canonical(SnapshotChunk(entities=entities))
            names.append(codec.sha256_hex(chunk))
            self.chunks[names[-1]] = chunk
        target = StatePoint(revision=revision, digest=digest_of(new))
        manifest = SnapshotManifest(target=target, chunks=tuple(names), entities_count=len(new))
        report = await self.order(APPLY, ApplyReport, ApplyOrder(snapshot=manifest))
        self.state, self.point = dict(new), target
        return report

    async def allow(self, allowances: Allowances) -> None:
        await self.send(ALLOWANCE, allowances)

    def told(self, kind: str) -> list[AgentEvent]:
        """Events of this type so far."""
        return [event for event in self.events if event.type == kind]


def _good(data: Message) -> bytes:
    return codec.encode(Reply(ok=True, data=msgspec.Raw(codec.canonical(data))))


def _now_ms() -> int:
    import time

    return time.time_ns() // 1_000_000


def entities(*bodies: InboundBody | ClientBody | OutboundBody | SettingsBody) -> dict[EntityKey, bytes]:
    """These bodies as a desired state."""
    found: dict[EntityKey, bytes] = {}
    for body in bodies:
        match body:
            case InboundBody():
                key = EntityKey(kind="inbound", id=str(body.ref))
            case ClientBody():
                key = EntityKey(kind="client", id=f"{body.client}.{body.inbound}")
            case OutboundBody():
                key = EntityKey(kind="outbound", id=body.tag)
            case SettingsBody():
                key = EntityKey(kind="settings", id="xray")
        found[key] = codec.canonical(body)
    return found


@dataclass
class AgentProcess:
    """`xfleet-agent run` as a process of its own."""

    state_dir: Path
    settings: dict[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None
    log_file: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log_file = self.state_dir.parent / "agent.log"

    async def start(self, *arguments: str) -> None:
        """Starts it; its log goes to `log_file`, beside the state if nobody says otherwise."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("XFLEET_")}
        environment |= {"XFLEET_METER_INTERVAL_S": "0.3", "XFLEET_HEARTBEAT_INTERVAL_S": "0.5"} | self.settings
        with self.log_file.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "xfleet_agent.main", "run", "--state-dir", str(self.state_dir), *arguments,
                env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def log(self) -> str:
        """What it wrote."""
        return self.log_file.read_text()

    async def end(self, number: signal.Signals = signal.SIGTERM, *, within_s: float = 15.0) -> int:
        """Sends a signal and waits for its end; the exit code."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), within_s)

    def xrays(self) -> list[StartedXray]:
        """Every Xray of this agent that runs now."""
        return find_xrays(self.state_dir)


def find_xrays(state_dir: Path) -> list[StartedXray]:
    """Every Xray that holds a lock in the run directory of this state."""
    run_dir = run_directory(state_dir)
    found: list[StartedXray] = []
    for each in Path("/proc").iterdir():
        if not each.name.isdigit():
            continue
        with suppress(OSError):
            path = Path(str((each / "fd" / "3").readlink()).removesuffix(" (deleted)"))
            if path.parent == run_dir and path.suffix == ".lock" and (ticks := start_time_ticks(int(each.name))):
                found.append(
                    StartedXray(
                        pid=int(each.name), boot_id=boot_id(), start_time_ticks=ticks, start_id=path.stem,
                        api_socket=str(path.with_suffix(".sock")),
                    )
                )  # fmt: skip
    return found


@asynccontextmanager
async def agent_process(
    broker: FleetBroker | None,
    sid: str = SLUG,
    *,
    identity: AgentIdentity | None = None,
    within: Path | None = None,
    log_file: Path | None = None,
    **settings: str,
) -> AsyncIterator[AgentProcess]:
    """A started, enrolled agent with short rhythms; it and its Xray are ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="xa-", dir=within, ignore_cleanup_errors=True) as name:
        state_dir = Path(name, "state")
        state_dir.mkdir(mode=0o700)
        if identity is None:
            assert broker is not None
            identity = broker.agent_identity(sid)
        (state_dir / "identity.json").write_bytes(codec.canonical(identity))
        agent = AgentProcess(state_dir, {f"XFLEET_{key.upper()}": value for key, value in settings.items()})
        agent.log_file = log_file or agent.log_file
        await agent.start()
        try:
            yield agent
        finally:
            if agent.process is not None and agent.process.returncode is None:
                await agent.end(signal.SIGKILL)
            for xray in agent.xrays():
                await stop(xray)
            sys.stderr.write(agent.log())
            shutil.rmtree(run_directory(state_dir), ignore_errors=True)


async def connected(link: BrokerLink) -> bool:
    """Whether a link is up."""
    try:
        await link.wait_connected(0.01)
    except BrokerOutage:
        return False
    return True
