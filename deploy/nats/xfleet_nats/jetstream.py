"""Streams and consumers of `xfleet_contracts.streams`, brought to the broker by a connection of role `ctl`."""

# pyright: reportUnknownMemberType=false
# nats-py leaves some of its own parameters untyped.

from datetime import UTC, datetime

from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StoreCompression,
    StreamConfig,
    StreamInfo,
)
from nats.js.errors import NotFoundError

from xfleet_contracts.streams import CONSUMERS, STREAMS, ConsumerSpec, StreamSpec


def stream_config(spec: StreamSpec, *, replicas: int = 1) -> StreamConfig:
    """The stream as nats-py spells it; nothing that a publisher's header could switch on is allowed."""
    return StreamConfig(
        name=spec.name,
        subjects=list(spec.subjects),
        retention=RetentionPolicy(spec.retention),
        discard=DiscardPolicy(spec.discard),
        discard_new_per_subject=spec.discard_new_per_subject,
        max_msgs_per_subject=spec.max_msgs_per_subject,
        max_bytes=spec.max_bytes,
        max_age=spec.max_age_s,
        max_msg_size=spec.max_msg_bytes,
        duplicate_window=spec.duplicate_window_s,
        storage=StorageType.FILE,
        num_replicas=replicas,
        compression=StoreCompression.S2,
        allow_direct=True,
        deny_delete=spec.deny_delete,
        deny_purge=spec.deny_purge,
        allow_rollup_hdrs=False,
    )


def consumer_config(spec: ConsumerSpec) -> ConsumerConfig:
    """The durable pull consumer as nats-py spells it."""
    return ConsumerConfig(
        durable_name=spec.durable,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=spec.ack_wait_s,
        max_ack_pending=spec.max_ack_pending,
        max_deliver=spec.max_deliver,
    )


async def ensure_streams(js: JetStreamContext, *, replicas: int = 1) -> dict[str, datetime]:
    """Makes the broker have every stream and consumer as specified; when each stream was created, aware UTC.

    A creation moment that changes means the broker's store was wiped: what was in there is gone.
    """
    created: dict[str, datetime] = {}
    for spec in STREAMS:
        info = await _ensure_stream(js, stream_config(spec, replicas=replicas))
        created[spec.name] = (info.created or datetime.now(UTC)).astimezone(UTC)
    for spec in CONSUMERS:
        await js.add_consumer(spec.stream, consumer_config(spec))
    return created


async def _ensure_stream(js: JetStreamContext, config: StreamConfig) -> StreamInfo:
    try:
        await js.stream_info(config.name or "")
    except NotFoundError:
        return await js.add_stream(config)
    return await js.update_stream(config)
