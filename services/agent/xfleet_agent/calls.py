"""Calls: what the agent asks the controller. Every failure of the way is a `BrokerOutage`, every no a `Refusal`.

An answer is believed for the controller's signature alone, which is checked before anything is parsed.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from xfleet_contracts import codec, subjects
from xfleet_contracts.apply import SNAPSHOT_GONE, ChunkRequest
from xfleet_contracts.care import BLOB, BlobAsk, BlobPart
from xfleet_contracts.commands import SIGNATURE_HEADER, Reply
from xfleet_contracts.enrollment import EnrollAnswer, EnrollRequest
from xfleet_contracts.errors import ErrorBody, MessageMalformed, Refusal, RemoteRefusal
from xfleet_contracts.traffic import LEDGER, LEDGER_BATCH, BatchName, BatchRequest, LedgerAnswer, LedgerQuery
from xfleet_runtime.broker import BrokerLink, BrokerOutage, Incoming, traceparent
from xfleet_runtime.keys.signing import Asked, verify_answer
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
T = TypeVar("T")
TIMEOUT_S = 10.0


class AnswerUntrusted(BrokerOutage):
    """An answer that no controller of our manifest gave to this very call: as good as none."""


class ChunkDamaged(Refusal):
    """A part of a snapshot that was changed on its way: the next try may bring it whole."""

    code = SNAPSHOT_GONE
    status = 409
    message = "A part of the snapshot does not hash to its name."


def opened(payload: bytes, kind: type[T]) -> T:
    """The data of a reply. Raises `RemoteRefusal` for a no, `MessageMalformed` for anything else."""
    return codec.decode(opened_bytes(payload), kind)


def opened_bytes(payload: bytes) -> bytes:
    """The data of a reply, byte for byte."""
    reply = codec.decode(payload, Reply)
    if not reply.ok:
        raise RemoteRefusal(reply.error or ErrorBody(code="refused", message="The controller refused."))
    return bytes(reply.data)


class Calls:
    """Asks on `fleet.rpc.<sid>.<method>`; `trusted` tells the command keys of the manifest in use."""

    def __init__(self, link: BrokerLink, sid: str, trusted: Callable[[], Mapping[str, bytes]]) -> None:
        self._link = link
        self._sid = sid
        self._trusted = trusted
        self._logged: set[tuple[str, str]] = set()

    async def ledger(self, query: LedgerQuery) -> LedgerAnswer:
        """What is committed, and what of ours somebody else committed."""
        return opened(await self._ask(LEDGER, query), LedgerAnswer)

    async def ledger_batch(self, name: BatchName) -> bytes:
        """A committed batch as it was sent. Raises `RemoteRefusal` when its body is no longer kept."""
        payload = await self._ask(LEDGER_BATCH, BatchRequest(epoch=name.epoch, seq=name.seq))
        if name.digest and codec.sha256_hex(payload) == name.digest:
            return payload
        try:
            reply = codec.decode(payload, Reply)
        except MessageMalformed:
            return payload
        return bytes(reply.data) if reply.ok else opened_bytes(payload)

    async def state_chunk(self, revision: int, chunk: str) -> bytes:
        """A part of a snapshot; raises `ChunkDamaged` unless it hashes to its name."""
        data = opened_bytes(await self._ask("state", ChunkRequest(revision=revision, chunk=chunk)))
        if codec.sha256_hex(data) != chunk:
            raise ChunkDamaged(chunk=chunk)
        return data

    async def renew(self, request: EnrollRequest) -> EnrollAnswer:
        """New credentials for the same identity."""
        return opened(await self._ask("renew", request), EnrollAnswer)

    async def blob_part(self, transfer: str, index: int) -> BlobPart:
        """A part of what this agent was told to restore."""
        return opened(await self._ask(BLOB, BlobAsk(transfer=transfer, index=index)), BlobPart)

    async def _ask(self, method: str, question: Any) -> bytes:
        subject, payload = subjects.call(self._sid, method), codec.encode(question)
        answer = await self._link.request(subject, payload, timeout_s=TIMEOUT_S, headers=traceparent())
        self._check(method, Asked(reply=answer.subject, subject=subject, question=payload), answer)
        return answer.payload

    def _check(self, method: str, asked: Asked, answer: Incoming) -> None:
        """The link gives an answer only under the subject it asked for, so that subject is the reply we chose."""
        try:
            verify_answer(self._trusted(), answer.headers.get(SIGNATURE_HEADER), asked, answer.payload)
        except Refusal as refusal:
            if (method, refusal.code) not in self._logged:
                self._logged.add((method, refusal.code))
                _log.error("an answer was not the controller's and is dropped", method=method, code=refusal.code)
            raise AnswerUntrusted(f"the answer to {method} cannot be trusted: {refusal.text}") from refusal
