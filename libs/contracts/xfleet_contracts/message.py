"""What every message on the bus has in common.

JSON objects, tolerant of fields they do not know, strict on the types of those they do. Fields are only ever added,
always with a default, so that today's code reads every message ever released.
"""

from typing import Annotated

import msgspec

MAX_MESSAGE_BYTES = 240 * 1024
"""No message on the bus is larger than this; bigger things travel in chunks."""

Secret = Annotated[str, msgspec.Meta(extra={"secret": True})]
"""Text that logs, tasks and audit rows never hold: the codec redacts it."""

SecretBytes = Annotated[bytes, msgspec.Meta(extra={"secret": True})]
"""Bytes (base64 on the wire) that the codec redacts."""

Ref = Annotated[int, msgspec.Meta(ge=1, lt=2**52)]
"""The random, never reused number under which wire, Xray and ledger know a client or an inbound."""

ByteCount = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A number of payload bytes."""

Number = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""A whole number that every database and every program can hold."""

Revision = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
"""A number of a desired state; it only grows."""

Slug = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
"""A server's name in subjects: immutable and never reused."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Base of everything that crosses the bus."""
