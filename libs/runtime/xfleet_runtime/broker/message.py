"""A message as it came in, and the header that ties messages into one trace."""

import re
import secrets
from collections.abc import Mapping
from typing import Protocol

import msgspec

TRACEPARENT = "traceparent"
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class Origin(Protocol):
    """The connection a message came in on: only there is an agent allowed to answer it."""

    @property
    def open(self) -> bool:
        """Whether an answer can still be sent there."""
        ...

    async def publish(self, subject: str, payload: bytes, reply: str, headers: Mapping[str, str] | None) -> None:
        """Sends on that connection."""
        ...

    def settled(self) -> None:
        """Learns that one of its messages has been handled, so that it can end when all are."""
        ...


class Incoming(msgspec.Struct, frozen=True):
    """One message from the bus. Its sender is what the subject says, for the broker enforced that and nothing else."""

    subject: str
    payload: bytes
    reply: str
    """Where the sender wants an answer; chosen by the sender and checked by nobody. Empty for none."""
    headers: Mapping[str, str]
    origin: Origin | None = None

    def __repr__(self) -> str:
        return f"Incoming({self.subject}, {len(self.payload)} bytes)"

    @property
    def trace_id(self) -> str:
        """The trace this message belongs to, 32 hex letters; empty when it carries none."""
        match = _TRACEPARENT.fullmatch(self.headers.get(TRACEPARENT, ""))
        return match.group(1) if match else ""


def traceparent(trace_id: str = "") -> dict[str, str]:
    """A W3C `traceparent` header: a new span of that trace, or of a new one."""
    return {TRACEPARENT: f"00-{trace_id or secrets.token_hex(16)}-{secrets.token_hex(8)}-01"}
