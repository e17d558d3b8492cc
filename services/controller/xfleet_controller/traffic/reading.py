"""What a traffic message says, read so that one broken row does not spoil the rest."""

import re
import zlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from xfleet_contracts import codec
from xfleet_contracts.traffic import MAX_BATCH_BYTES, MAX_BATCH_ROWS, Batch, ClientRow, Gap, TagRow

COMPRESSION = 1
MAX_SEQ = 2**53

_EPOCH = re.compile(r"[0-9a-f]{24}")
_WORD = re.compile(r"[\x21-\x7e]{0,64}")
_TAG = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,100}")

Row = TypeVar("Row", ClientRow, TagRow)


class Unreadable(Exception):  # noqa: N818  names the state of a payload
    """A payload that is no batch at all: `reason` is the word it is set aside under."""

    def __init__(self, reason: str, detail: str, epoch: str = "", seq: int = 0) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.epoch = epoch
        self.seq = seq


class _Name(msgspec.Struct):
    """What even a batch that cannot be read mostly tells: which number it takes."""

    epoch: str
    seq: int


class _Loose(msgspec.Struct):
    """A batch whose rows are not looked into yet."""

    clients: tuple[msgspec.Raw, ...] = ()
    tags: tuple[msgspec.Raw, ...] = ()
    gaps: tuple[msgspec.Raw, ...] = ()


class Parsed(msgspec.Struct, frozen=True):
    """A batch with its rows in their places; a row that cannot be read is None."""

    head: Batch
    clients: Sequence[ClientRow | None]
    tags: Sequence[TagRow | None]
    gaps: Sequence[Gap]


class Reading(msgspec.Struct, frozen=True):
    """One message on its way into the ledger."""

    sid: str
    parsed: Parsed
    payload: bytes
    digest: str
    packed: bytes
    stored_at: datetime
    """When the broker took it."""
    clients: list[int]
    """Refs of the clients it tells of, row by row."""
    inbounds: set[int]
    """Refs of the inbounds it tells of."""
    refused: Unreadable | None = None
    """Why nothing of it counts; it takes its number all the same, or no receipt would ever pass it."""

    @property
    def key(self) -> tuple[str, int]:
        """Epoch and seq."""
        return self.parsed.head.epoch, self.parsed.head.seq


def parse(payload: bytes) -> Parsed:
    """The batch in these bytes. Raises `Unreadable`."""
    if len(payload) > MAX_BATCH_BYTES:
        raise Unreadable("too_large", f"{len(payload)} bytes, {MAX_BATCH_BYTES} are allowed")
    try:
        batch = msgspec.json.decode(payload, type=Batch)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _check(_parse_loosely(payload))
    return _check(Parsed(batch, batch.clients, batch.tags, batch.gaps))


def read(sid: str, payload: bytes, stored_at: datetime) -> Reading:
    """The message of that server. Raises `Unreadable`."""
    parsed = parse(payload)
    rows = [row for row in parsed.clients if row is not None]
    tags = (row.tag for row in parsed.tags if row is not None and row.direction == "inbound")
    inbounds = {row.inbound for row in rows} | {ref for ref in map(inbound_of, tags) if ref is not None}
    return Reading(
        sid,
        parsed,
        payload,
        codec.sha256_hex(payload),
        pack(payload),
        stored_at,
        [row.client for row in rows],
        inbounds,
    )


def hollow(sid: str, payload: bytes, stored_at: datetime, why: Unreadable) -> Reading | None:
    """A message of which nothing counts, under its number; None when it does not tell that."""
    try:
        name = msgspec.json.decode(payload, type=_Name)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not (_EPOCH.fullmatch(name.epoch) and 1 <= name.seq < MAX_SEQ):
        return None
    at_ms = int(stored_at.timestamp() * 1000)
    head = Batch(epoch=name.epoch, seq=name.seq, instance="", start_id="", from_at_ms=at_ms, to_at_ms=at_ms)
    return Reading(sid, Parsed(head, (), (), ()), payload, codec.sha256_hex(payload), b"", stored_at, [], set(), why)


def inbound_of(tag: str) -> int | None:
    """The inbound's ref in a tag; None when it holds none."""
    return int(tag) if tag.isascii() and tag.isdecimal() and len(tag) <= 16 else None  # noqa: PLR2004  52 bits


def pack(payload: bytes) -> bytes:
    """The payload as the ledger keeps it."""
    return zlib.compress(payload, COMPRESSION)


def unpack(body: bytes) -> bytes:
    """The payload as it was sent."""
    return zlib.decompress(body)


def _parse_loosely(payload: bytes) -> Parsed:
    try:
        loose = msgspec.json.decode(payload, type=_Loose)
        fields: dict[str, Any] = msgspec.json.decode(payload)
        head = msgspec.convert({k: v for k, v in fields.items() if k not in {"clients", "tags", "gaps"}}, Batch)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable("malformed", str(error)[:500]) from error
    gaps = [gap for gap in (_row(raw, Gap) for raw in loose.gaps) if gap is not None]
    return Parsed(
        head, [_row(raw, ClientRow) for raw in loose.clients], [_row(raw, TagRow) for raw in loose.tags], gaps
    )


def _row(raw: msgspec.Raw, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _check(parsed: Parsed) -> Parsed:
    head = parsed.head
    if not _EPOCH.fullmatch(head.epoch):
        raise Unreadable("malformed", "the epoch is not 24 letters of hex")
    if not 1 <= head.seq < MAX_SEQ:
        raise Unreadable("malformed", "the number is not one of a batch", head.epoch)
    if len(parsed.clients) + len(parsed.tags) > MAX_BATCH_ROWS * 2 or len(parsed.clients) > MAX_BATCH_ROWS:
        raise Unreadable("too_large", f"more than {MAX_BATCH_ROWS} rows", head.epoch, head.seq)
    if not (_WORD.fullmatch(head.instance) and _WORD.fullmatch(head.start_id)):
        raise Unreadable("malformed", "instance or start id is not a word", head.epoch, head.seq)
    if not all(_WORD.fullmatch(gap.start_id) for gap in parsed.gaps):
        raise Unreadable("malformed", "a gap's start id is not a word", head.epoch, head.seq)
    tags = [tag if tag is not None and _TAG.fullmatch(tag.tag) else None for tag in parsed.tags]
    return Parsed(head, parsed.clients, tags, parsed.gaps)
