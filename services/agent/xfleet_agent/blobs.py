"""Blobs: what is too big for one message, sent and fetched part by part."""

import asyncio
import hashlib
import os
import re
from pathlib import Path

from xfleet_agent.aside import aside
from xfleet_agent.calls import Calls, opened_bytes
from xfleet_contracts import codec, subjects
from xfleet_contracts.care import BLOB_PART_BYTES, MAX_BLOB_BYTES, BlobPart, BlobSent, RestoreOrder
from xfleet_contracts.errors import MessageMalformed, MessageTooLarge, Refusal
from xfleet_contracts.installs import ChecksumWrong
from xfleet_runtime.broker import BrokerLink, BrokerOutage, NoResponders, traceparent

PART_TIMEOUT_S = 3.0
RETRY_S = 0.5
NOBODY_MAX = 20
"""So often nobody may listen: a controller that starts again does sooner, one that gave up never does."""
_TRANSFER = re.compile(r"[a-z0-9]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class TransferBroken(Refusal):
    """The other side was gone until the order's time was over."""

    code = "transfer_broken"
    status = 504
    message = "The transfer could not be finished in time."


async def send_blob(link: BrokerLink, sid: str, transfer: str, file: Path, *, timeout_s: float) -> BlobSent:
    """Sends a file; every part is repeated until it is acknowledged.

    Raises `MessageTooLarge`, `TransferBroken`, or the refusal the receiver answered with.
    """
    check_transfer(transfer)
    size_bytes = file.stat().st_size
    if size_bytes > MAX_BLOB_BYTES:
        raise MessageTooLarge("The archive is larger than a blob may be.", size_bytes=size_bytes)
    parts_count = parts_of(size_bytes)
    digest = hashlib.sha256()
    subject = subjects.blob(sid, transfer)
    try:
        async with asyncio.timeout(timeout_s):
            for index in range(parts_count):
                data = await aside(_read_part, file, index)
                digest.update(data)
                part = codec.encode(BlobPart(index=index, parts_count=parts_count, data=data))
                await _send_part(link, subject, part)
    except TimeoutError:
        raise TransferBroken(transfer=transfer) from None
    return BlobSent(transfer=transfer, size_bytes=size_bytes, sha256=digest.hexdigest(), parts_count=parts_count)


async def _send_part(link: BrokerLink, subject: str, part: bytes) -> None:
    nobody_count = 0
    while True:
        try:
            answer = await link.request(subject, part, timeout_s=PART_TIMEOUT_S, headers=traceparent())
        except BrokerOutage as outage:
            nobody_count += isinstance(outage, NoResponders)
            if nobody_count > NOBODY_MAX:
                raise TransferBroken("Nobody takes the archive any more.") from outage
            await asyncio.sleep(RETRY_S)
            continue
        opened_bytes(answer.payload)
        return


async def fetch_blob(calls: Calls, order: RestoreOrder, target: Path, *, timeout_s: float) -> None:
    """Fetches what an order names into a file. Raises `TransferBroken`, `ChecksumWrong`, `MessageMalformed`."""
    check_transfer(order.transfer)
    if not 0 < order.size_bytes <= MAX_BLOB_BYTES or order.parts_count != parts_of(order.size_bytes):
        raise MessageMalformed("The order's size and number of parts do not fit.", field="size_bytes")
    if not _SHA256.fullmatch(order.sha256):
        raise MessageMalformed("A SHA-256 is 64 hexadecimal digits.", field="sha256")
    digest, size_bytes = hashlib.sha256(), 0
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        async with asyncio.timeout(timeout_s):
            with os.fdopen(descriptor, "wb") as file:
                for index in range(order.parts_count):
                    part = await _fetch_part(calls, order, index)
                    size_bytes += len(part)
                    digest.update(part)
                    file.write(part)
    except TimeoutError:
        raise TransferBroken(transfer=order.transfer) from None
    if size_bytes != order.size_bytes or digest.hexdigest() != order.sha256:
        raise ChecksumWrong(sha256=digest.hexdigest(), size_bytes=size_bytes)


async def _fetch_part(calls: Calls, order: RestoreOrder, index: int) -> bytes:
    while True:
        try:
            part = await calls.blob_part(order.transfer, index)
        except BrokerOutage:
            await asyncio.sleep(RETRY_S)
            continue
        expected_bytes = min(BLOB_PART_BYTES, order.size_bytes - index * BLOB_PART_BYTES)
        if part.index != index or len(part.data) != expected_bytes:
            raise ChecksumWrong("A part of the archive is not the one that was asked for.", index=index)
        return part.data


def parts_of(size_bytes: int) -> int:
    """How many parts a blob of this size has."""
    return max(1, -(-size_bytes // BLOB_PART_BYTES))


def check_transfer(transfer: str) -> None:
    """Raises `MessageMalformed` for a name that is no token of a subject."""
    if not _TRANSFER.fullmatch(transfer):
        raise MessageMalformed("A transfer is named by lower-case letters and digits.", field="transfer")


def _read_part(file: Path, index: int) -> bytes:
    with file.open("rb") as source:
        source.seek(index * BLOB_PART_BYTES)
        return source.read(BLOB_PART_BYTES)
