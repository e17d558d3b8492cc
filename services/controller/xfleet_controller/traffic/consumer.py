"""The loop that feeds the ledger from the stream TRAFFIC."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from xfleet_contracts.streams import LEDGER_CONSUMER, TRAFFIC
from xfleet_contracts.subjects import traffic
from xfleet_controller.servers.presence import Bucket
from xfleet_controller.traffic.ingest import DatabaseAway, Delivery, Ingest
from xfleet_runtime.backoff import Backoff
from xfleet_runtime.broker import BrokerLink, BrokerOutage
from xfleet_runtime.clock import Clock
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
IDLE_WAIT_S = 5.0
GATHER_S = 0.05
"""How long a fetch waits for more after its first message."""
API_TIMEOUT_S = 5.0
BATCHES_BURST_COUNT = 600
BATCHES_PER_S = 40.0
"""Per server: an agent catching up keeps at most 64 batches waiting, one of ten thousand clients seals six in ten s."""
SLOW_DOWN_S = 5.0

BROKER_ERRORS = (BrokerOutage, nats.errors.Error, TimeoutError)


class StreamDelivery:
    """A message of the stream, acknowledged at most once."""

    def __init__(self, message: Msg, on_ack: Callable[[str], None] = lambda _subject: None) -> None:
        self.subject = message.subject
        self.payload = message.data
        self.stored_at: datetime = message.metadata.timestamp.astimezone(UTC)
        self._message = message
        self._on_ack = on_ack
        self._settled = False

    async def ack(self) -> None:
        """It is committed; when the broker does not hear it, it comes again and is known."""
        self._on_ack(self._message.reply)
        await self._settle(self._message.ack)

    async def nak(self, delay_s: float) -> None:
        """Give it again after the delay."""
        await self._settle(lambda: self._message.nak(delay=delay_s))

    async def _settle(self, say: object) -> None:
        if self._settled:
            return
        self._settled = True
        try:
            await say()  # type: ignore[operator]
        except nats.errors.Error as error:
            _log.info("an acknowledgement did not reach the broker", reason=repr(error))


class LedgerConsumer:
    """Fetches, hands over to the ingest, and gives back what the database cannot take now."""

    def __init__(self, link: BrokerLink, ingest: Ingest, clock: Clock) -> None:
        self._link = link
        self._ingest = ingest
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}
        self._backoff = Backoff(first_s=1.0, most_s=30.0)
        self._acks: deque[tuple[float, str]] = deque(maxlen=LEDGER_CONSUMER.max_ack_pending)
        """Moment and subject of the last acknowledgements: what the broker did not keep is said again."""
        self._acks_of: datetime | None = None

    async def run(self) -> None:
        """Consumes for ever, on this and every later connection."""
        backoff = Backoff(first_s=0.5, most_s=10.0)
        while True:
            await self._link.wait_connected()
            try:
                js = self._link.js
                pull = await js.pull_subscribe_bind(LEDGER_CONSUMER.durable, stream=TRAFFIC.name)
                info = await js.consumer_info(TRAFFIC.name, LEDGER_CONSUMER.durable, timeout=API_TIMEOUT_S)
                await self._acknowledge_again(info.created)
                backoff.reset()
                await self._consume(pull)
            except BROKER_ERRORS as error:
                _log.info("the ledger waits for the broker", reason=repr(error))
            await asyncio.sleep(backoff.next_s())

    async def count_pending(self, sid: str) -> int:
        """Messages of this server that are in the stream and not acknowledged. Raises `BrokerOutage`."""
        subject = traffic(sid)
        try:
            info = await self._link.js.stream_info(TRAFFIC.name, subjects_filter=subject)
        except (nats.errors.Error, TimeoutError) as error:
            raise BrokerOutage(f"the stream did not answer: {error!r}") from error
        return (info.state.subjects or {}).get(subject, 0)

    async def _acknowledge_again(self, made_at: datetime | None) -> None:
        """Says on a new connection what the old one or the broker's last life may have lost; twice does no harm.

        A consumer made anew counts anew: an old acknowledgement would mean another message there.
        """
        if made_at != self._acks_of:
            self._acks.clear()
            self._acks_of = made_at
        since_s = self._clock.monotonic_s() - LEDGER_CONSUMER.ack_wait_s
        for acked_at_s, subject in tuple(self._acks):
            if acked_at_s >= since_s:
                await self._link.publish(subject, b"+ACK")

    def _note_ack(self, subject: str) -> None:
        self._acks.append((self._clock.monotonic_s(), subject))

    async def _consume(self, pull: JetStreamContext.PullSubscription) -> None:
        bound_to = self._link.js._nc  # noqa: SLF001  nats-py offers no other way to see a new connection
        try:
            while self._link.js._nc is bound_to:  # noqa: SLF001
                deliveries = await self._fetch(pull)
                if deliveries:
                    await self.take(await self.admit(deliveries))
        finally:
            await _forget(pull)

    async def _fetch(self, pull: JetStreamContext.PullSubscription) -> list[Delivery]:
        try:
            messages = await pull.fetch(1, timeout=IDLE_WAIT_S)
        except (nats.errors.TimeoutError, TimeoutError):
            return []
        with suppress(nats.errors.TimeoutError, TimeoutError):
            messages += await pull.fetch(self._ingest.settings.fetch_count - 1, timeout=GATHER_S)
        return [StreamDelivery(message, self._note_ack) for message in messages]

    async def admit(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those of servers that keep to their rate; the others' are given back before anything is decoded."""
        now_s = self._clock.monotonic_s()
        admitted: list[Delivery] = []
        for delivery in deliveries:
            fresh = Bucket(
                filled_at_s=now_s, burst=BATCHES_BURST_COUNT, per_s=BATCHES_PER_S, tokens=BATCHES_BURST_COUNT
            )
            if self._buckets.setdefault(delivery.subject, fresh).take(now_s):
                admitted.append(delivery)
            else:
                self._ingest.metrics.batches.labels("slowed").inc()
                await delivery.nak(SLOW_DOWN_S)
        return admitted

    async def take(self, deliveries: Sequence[Delivery]) -> None:
        """Hands over to the ingest; gives everything back with a growing delay while the database is away."""
        try:
            await self._ingest.take(deliveries)
        except DatabaseAway as outage:
            delay_s = self._backoff.next_s()
            self._ingest.metrics.delays.inc()
            _log.warning("the ledger cannot write; the stream holds", reason=str(outage), retry_s=round(delay_s, 1))
            for delivery in deliveries:
                await delivery.nak(delay_s)
            await asyncio.sleep(delay_s)
        else:
            self._backoff.reset()


async def _forget(pull: JetStreamContext.PullSubscription) -> None:
    try:
        await pull.unsubscribe()
    except nats.errors.Error as error:
        _log.debug("the old pull subscription is gone already", reason=repr(error))
