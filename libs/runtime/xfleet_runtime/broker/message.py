"""A message as it came in, and the header that ties messages into one trace."""

import re
import secrets
from collections.abc import Mapping

import msgspec

TRACEPARENT = "traceparent"
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class Incoming(msgspec.Struct, frozen=True):
    """One message from the bus. Its sender is what the subject says, for the broker enforced that and nothing else."""

    subject: str
    payload: bytes
    reply: str
    """Where the sender wants an answer; chosen by the sender and checked by nobody. Empty for none."""
    headers: Mapping[str, str]

    @property
    def trace_id(self) -> str:
        """The trace this message belongs to, 32 hex letters; empty when it carries none."""
        match = _TRACEPARENT.fullmatch(self.headers.get(TRACEPARENT, ""))
        return match.group(1) if match else ""


def traceparent(trace_id: str = "") -> dict[str, str]:
    """A W3C `traceparent` header: a new span of that trace, or of a new one."""
    return {TRACEPARENT: f"00-{trace_id or secrets.token_hex(16)}-{secrets.token_hex(8)}-01"}
