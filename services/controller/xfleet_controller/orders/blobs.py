"""Files on their way from and to agents: in acknowledged parts, kept on disk meanwhile, bounded in size and number.

A backup comes in on `fleet.up.<sid>.blob.<transfer>`, over the `rpc` link, which may answer agents. What is to be
restored is offered to one server, who asks for its parts by `rpc blob`, until the order is over.
"""

import asyncio
import hashlib
import io
import os
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from xfleet_contracts import codec, subjects
from xfleet_contracts.care import BLOB_PART_BYTES, MAX_BLOB_BYTES, BlobAsk, BlobPart, BlobSent, RestoreOrder
from xfleet_contracts.commands import Nothing
from xfleet_contracts.errors import Refusal
from xfleet_controller.fleet.inbox import answer_of, refusal_of
from xfleet_runtime.broker import BrokerLink, BrokerOutage, Incoming
from xfleet_runtime.files import private_directory
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
PENDING_MAX = 8
MAX_PARTS = 8 * MAX_BLOB_BYTES // BLOB_PART_BYTES
"""Parts may be smaller than they could be, but not without end."""
MAX_TRANSFERS = 4
METHOD = "blob"


class BlobWrong(Refusal):
    """What came is not what was announced: parts out of order, too many, too large, or another SHA-256."""

    code = "blob_wrong"
    status = 502
    message = "The server's file did not arrive as announced; it was thrown away."


class BlobTooLarge(Refusal):
    """A file over the limit."""

    code = "too_large"
    status = 413
    message = f"The file is larger than {MAX_BLOB_BYTES // 1024 // 1024} MB."


class NoRoom(Refusal):
    """The controller's disk does not take the file."""

    code = "storage"
    status = 507
    message = "The controller's disk is full."


class BlobGone(Refusal):
    """A part of a file that is not offered to this server (any more)."""

    code = "blob_gone"
    status = 404
    message = "This file is not offered to this server."


class TooManyTransfers(Refusal):
    """Other files are on their way."""

    code = "rate_limited"
    status = 429
    message = "Other backups are on their way. Try again in a minute."


def new_transfer() -> str:
    """A name nobody can guess, fit for a subject."""
    return secrets.token_hex(16)


@dataclass(kw_only=True)
class Intake:
    """A file that is coming in."""

    transfer: str
    file: BinaryIO
    size_bytes: int = 0
    received_count: int = 0
    parts_count: int = 0
    failed: "asyncio.Future[None]"
    """Gets the refusal as soon as the sender breaks the rules."""
    _sha256: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def take(self, part: BlobPart) -> None:
        """Appends the next part; one that came before is only acknowledged again. Raises `BlobWrong`."""
        size = len(part.data)
        if not 0 < part.parts_count <= MAX_PARTS or (self.parts_count and part.parts_count != self.parts_count):
            raise BlobWrong(reason="parts_count", parts_count=part.parts_count)
        if 0 <= part.index < self.received_count:
            return
        if part.index != self.received_count or part.index >= part.parts_count:
            raise BlobWrong(reason="index", index=part.index, expected=self.received_count)
        if not 0 < size <= BLOB_PART_BYTES:
            raise BlobWrong(reason="part_size", size_bytes=size)
        if self.size_bytes + size > MAX_BLOB_BYTES:
            raise BlobTooLarge(limit_bytes=MAX_BLOB_BYTES)
        self.file.write(part.data)
        self._sha256.update(part.data)
        self.parts_count, self.received_count = part.parts_count, self.received_count + 1
        self.size_bytes += size

    def check(self, sent: BlobSent) -> None:
        """Raises `BlobWrong` unless all of what the sender announced is here."""
        here = (self.transfer, self.size_bytes, self.received_count, self._sha256.hexdigest())
        said = (sent.transfer, sent.size_bytes, sent.parts_count, sent.sha256)
        if here != said or self.received_count != self.parts_count:
            raise BlobWrong(reason="sha256" if here[:3] == said[:3] else "size", size_bytes=self.size_bytes)
        self.file.flush()

    def handed_over(self) -> BinaryIO:
        """The file, from its beginning; whoever takes it closes it."""
        kept, self.file = self.file, io.BytesIO()
        kept.seek(0)
        return kept


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A file that one server may fetch."""

    sid: str
    file: BinaryIO
    order: RestoreOrder

    def part(self, index: int) -> BlobPart:
        """A part of it. Raises `BlobGone`."""
        if not 0 <= index < self.order.parts_count:
            raise BlobGone(index=index)
        data = os.pread(self.file.fileno(), BLOB_PART_BYTES, index * BLOB_PART_BYTES)
        return BlobPart(index=index, parts_count=self.order.parts_count, data=data)


class Transfers:
    """All files on their way through this controller; they have no names, so that none outlives it."""

    def __init__(self, directory: Path, rpc: BrokerLink) -> None:
        self._directory = directory
        self._rpc = rpc
        self._offers: dict[str, Offer] = {}
        self._busy: set[str] = set()

    def new_file(self) -> BinaryIO:
        """A file without a name on the controller's own disk."""
        return cast("BinaryIO", tempfile.TemporaryFile(dir=private_directory(self._directory)))

    @asynccontextmanager
    async def taking(self, sid: str) -> AsyncIterator[Intake]:
        """Takes the parts of one file from that server; what was not handed over goes when the block ends."""
        transfer = new_transfer()
        with self._place(sid):
            intake = Intake(transfer=transfer, file=self.new_file(), failed=asyncio.get_running_loop().create_future())

            async def on_part(message: Incoming) -> None:
                await self._take(sid, intake, message)

            subscription = await self._rpc.subscribe(subjects.blob(sid, transfer), on_part, pending_max=PENDING_MAX)
            try:
                yield intake
            finally:
                await self._rpc.unsubscribe(subscription)
                if not intake.failed.cancel():
                    intake.failed.exception()
                intake.file.close()

    @asynccontextmanager
    async def offering(self, sid: str, file: BinaryIO) -> AsyncIterator[RestoreOrder]:
        """Lets that server fetch a file until the block ends. Raises `BlobTooLarge` or `BlobWrong`."""
        size_bytes, digest = await asyncio.to_thread(_measured, file)
        if size_bytes > MAX_BLOB_BYTES:
            raise BlobTooLarge(limit_bytes=MAX_BLOB_BYTES)
        if not size_bytes:
            raise BlobWrong("The file is empty.", reason="empty")
        parts_count = -(-size_bytes // BLOB_PART_BYTES)
        order = RestoreOrder(transfer=new_transfer(), size_bytes=size_bytes, sha256=digest, parts_count=parts_count)
        with self._place(sid):
            self._offers[order.transfer] = Offer(sid=sid, file=file, order=order)
            try:
                yield order
            finally:
                del self._offers[order.transfer]

    async def answer(self, sid: str, _server_id: int, payload: bytes) -> bytes:
        """`rpc blob`: a part of what is offered to that server, and to nobody else. Raises `BlobGone`."""
        asked = codec.decode(payload, BlobAsk)
        offer = self._offers.get(asked.transfer)
        if offer is None or offer.sid != sid:
            raise BlobGone
        return answer_of(offer.part(asked.index))

    async def _take(self, sid: str, intake: Intake, message: Incoming) -> None:
        try:
            payload = _taken(intake, message.payload)
        except Refusal as refusal:
            payload = refusal_of(refusal)
            if not intake.failed.done():
                intake.failed.set_exception(refusal)
        try:
            await self._rpc.respond(message, payload, within=subjects.agent_inbox(sid))
        except BrokerOutage as outage:
            _log.info("a part could not be acknowledged", sid=sid, reason=str(outage))

    def _place(self, sid: str) -> "_Place":
        return _Place(self._busy, sid)


class _Place:
    """One of the few places for transfers, and the only one of a server."""

    def __init__(self, busy: set[str], sid: str) -> None:
        self._busy = busy
        self._sid = sid

    def __enter__(self) -> None:
        if self._sid in self._busy or len(self._busy) >= MAX_TRANSFERS:
            raise TooManyTransfers(retry_after_s=60)
        self._busy.add(self._sid)

    def __exit__(self, *_: object) -> None:
        self._busy.discard(self._sid)


def _taken(intake: Intake, payload: bytes) -> bytes:
    try:
        intake.take(codec.decode(payload, BlobPart))
    except OSError as error:
        raise NoRoom(reason=error.strerror or "") from error
    return answer_of(Nothing())


def _measured(file: BinaryIO) -> tuple[int, str]:
    file.flush()
    file.seek(0)
    digest = hashlib.file_digest(cast("Any", file), "sha256").hexdigest()
    return os.fstat(file.fileno()).st_size, digest
