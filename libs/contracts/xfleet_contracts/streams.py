"""JetStream streams and consumers as data; the controller creates and corrects them at every connect.

The broker is not trusted to keep TRAFFIC: an agent's spool lets a batch go only on the controller's receipt.
"""

import msgspec

from xfleet_contracts import subjects

GIB = 1024**3


class StreamSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A stream as the broker should have it; sizes in bytes, times in seconds."""

    name: str
    subjects: tuple[str, ...]
    retention: str
    """`workqueue` or `limits`."""
    discard: str
    """`new` or `old`."""
    discard_new_per_subject: bool = False
    max_msgs_per_subject: int = -1
    max_bytes: int
    max_age_s: float = 0
    max_msg_bytes: int = 256 * 1024
    duplicate_window_s: float = 120
    deny_delete: bool = True
    deny_purge: bool = True


class ConsumerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A durable pull consumer with explicit acknowledgement."""

    stream: str
    durable: str
    ack_wait_s: float = 30
    max_ack_pending: int = 5000
    max_deliver: int = -1


TRAFFIC = StreamSpec(
    name="TRAFFIC",
    subjects=(subjects.ALL_TRAFFIC,),
    retention="workqueue",
    discard="new",
    discard_new_per_subject=True,
    max_msgs_per_subject=256,
    max_bytes=8 * GIB,
)
"""Sealed batches on their way to the ledger."""

AGENT_EVENTS = StreamSpec(
    name="AGENT_EVENTS",
    subjects=(subjects.ALL_AGENT_EVENTS,),
    retention="limits",
    discard="new",
    discard_new_per_subject=True,
    max_msgs_per_subject=1000,
    max_bytes=GIB // 4,
    max_age_s=7 * 86400,
)
"""What agents tell about themselves; nothing depends on arrival."""

EVENTS = StreamSpec(
    name="EVENTS",
    subjects=(subjects.ALL_EVENTS,),
    retention="limits",
    discard="old",
    max_bytes=GIB,
    max_age_s=7 * 86400,
)
"""What happened, published by controllers only, for bot, panel and webhooks."""

LEDGER_CONSUMER = ConsumerSpec(stream="TRAFFIC", durable="ledger")
AGENT_EVENTS_CONSUMER = ConsumerSpec(stream="AGENT_EVENTS", durable="controller")
BOT_CONSUMER = ConsumerSpec(stream="EVENTS", durable="bot")

STREAMS = (TRAFFIC, AGENT_EVENTS, EVENTS)
CONSUMERS = (LEDGER_CONSUMER, AGENT_EVENTS_CONSUMER, BOT_CONSUMER)
