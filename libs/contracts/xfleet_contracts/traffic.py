"""Traffic: sealed batches of bytes on their way into the ledger.

Subject  fleet.up.<sid>.traffic (agent -> stream TRAFFIC), Nats-Msg-Id = epoch:seq:digest
Rhythm   after every meter reading that moved something, every METER_INTERVAL_S
Loss     none: a batch stays in the agent's spool until the controller's signed receipt

A batch is immutable from the moment it is sealed: never merged, renumbered or encoded again. Its digest is the
SHA-256 of its payload. Counters are read from one Xray start only, so that two agents that both once drove the same
Xray (a copied or rolled back state directory) can find out by `rpc ledger` what the other already counted.

Calls    fleet.rpc.<sid>.ledger: what is committed, and which batches of these Xray starts the asker does not know;
         fleet.rpc.<sid>.ledger_batch: one such batch, as it was sent
"""

from typing import Literal

import msgspec

from xfleet_contracts.message import ByteCount, Message, Ref

METER_INTERVAL_S = 10
MAX_BATCH_ROWS = 2000
MAX_BATCH_BYTES = 128 * 1024
MAX_SEALED_WAITING = 64
LEDGER = "ledger"
LEDGER_BATCH = "ledger_batch"
BATCH_NOT_KEPT = "batch_not_kept"

Epoch = str
"""96 random bits in hex, new at every agent start."""


class ClientRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Bytes of one client on one inbound within one UTC hour."""

    client: Ref
    inbound: Ref
    hour: int
    """Unix time // 3600."""
    up_bytes: ByteCount
    down_bytes: ByteCount


class TagRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Bytes of one inbound (`tag` = its ref in decimal) or outbound (`tag`) within one UTC hour, as on the wire."""

    direction: Literal["inbound", "outbound"]
    tag: str
    hour: int
    up_bytes: ByteCount
    down_bytes: ByteCount


class Gap(Message, frozen=True, kw_only=True):
    """Time whose bytes nobody can know any more, such as between the last reading and Xray's crash."""

    from_at_ms: int
    to_at_ms: int
    reason: Literal["xray_died", "host_died", "spool_lost", "archive_lost", "clone_unresolved"]
    start_id: str = ""


class Batch(Message, frozen=True, kw_only=True):
    """One sealed batch; the payload of a traffic message."""

    epoch: Epoch
    seq: int
    """From 1, without holes, within the epoch."""
    instance: str
    start_id: str
    """The Xray start whose counters these are."""
    from_at_ms: int
    to_at_ms: int
    clients: tuple[ClientRow, ...] = ()
    tags: tuple[TagRow, ...] = ()
    gaps: tuple[Gap, ...] = ()


class EpochMark(Message, frozen=True, kw_only=True):
    """How far one epoch is known or committed."""

    epoch: Epoch
    through: int
    """Highest seq without holes."""
    digest: str = ""
    """Of that batch."""


class BatchName(Message, frozen=True, kw_only=True):
    """Names one batch."""

    epoch: Epoch
    seq: int
    digest: str = ""


class LedgerQuery(Message, frozen=True, kw_only=True):
    """Asked at every start and reconnect, before anything new is sealed."""

    instance: str
    epoch: Epoch
    starts: tuple[str, ...] = ()
    """Xray starts of which the asker holds open rows or which it drives now."""
    known: tuple[EpochMark, ...] = ()
    """What the asker sealed itself, per epoch."""


class LedgerAnswer(Message, frozen=True, kw_only=True):
    """The ledger's side of it."""

    pending_count: int
    """Batches of this server still in the broker's stream: while there are any, the answer is not final."""
    committed: tuple[EpochMark, ...] = ()
    foreign: tuple[BatchName, ...] = ()
    """Committed batches of the named starts that the asker did not seal: it subtracts their rows from its open ones."""
    missing: tuple[BatchName, ...] = ()
    """Like `foreign`, but their bodies are no longer kept: open rows of their starts become a declared gap."""
    owned_elsewhere: tuple[str, ...] = ()
    """Starts that another live instance of this server drives: the asker drops its open rows of these."""


class BatchRequest(Message, frozen=True, kw_only=True):
    """`rpc ledger_batch`: the answer's payload is the batch, byte for byte."""

    epoch: Epoch
    seq: int
