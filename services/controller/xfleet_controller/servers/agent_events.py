"""What agents tell about themselves: passed on as events of the fleet, and kept as the server's last error."""

import asyncio

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg

from xfleet_contracts import codec, subjects
from xfleet_contracts.errors import Refusal
from xfleet_contracts.events import AgentEvent
from xfleet_contracts.streams import AGENT_EVENTS, AGENT_EVENTS_CONSUMER
from xfleet_controller.context import Context
from xfleet_controller.outbox import note_event
from xfleet_controller.servers import store
from xfleet_controller.servers.fields import MAINTENANCE
from xfleet_runtime.backoff import Backoff
from xfleet_runtime.broker import BrokerLink, BrokerOutage
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
FETCH_COUNT = 100
FETCH_WAIT_S = 5.0
ERRORS = {
    "xray_crashed": "Xray crashed and was started again.",
    "xray_rolled_back": "The new Xray ended soon after it took over; the one before runs again.",
    "xray_version_missing": "The installed Xray is gone from the server's disk; the bundled one runs.",
    "apply_reverted": "Xray kept crashing after a change; the last good configuration runs.",
    "state_rolled_back": "The agent's state directory is older than the ledger: it was restored from a copy.",
    "agent_forked": "The agent's state directory was copied: two agents were the same one.",
    "cloned": "Another machine runs with a copy of this agent's state directory.",
    "spool_unwritable": "The agent cannot write its traffic to disk.",
    "disk_low": "The agent's disk is almost full.",
    "database_replaced": "The agent's database was replaced.",
    "counter_went_backwards": "A traffic counter of Xray went backwards.",
}
"""Events that are shown as the server's last error, in a sentence."""

DRIFT = "drift_patched"
HELD = frozenset({"xray_crashed", "apply_reverted", "spool_unwritable", "disk_low", "disk_ok", DRIFT})
"""Events that are not passed on about a server in maintenance: whoever works on it causes them."""


class AgentEvents:
    """Consumes the stream of agents' events."""

    def __init__(self, context: Context, link: BrokerLink) -> None:
        self._context = context
        self._link = link

    async def run(self) -> None:
        """Consumes for ever, on this and every later connection."""
        backoff = Backoff(first_s=0.5, most_s=15.0)
        while True:
            await self._link.wait_connected()
            try:
                await self._consume(backoff)
            except (nats.errors.Error, nats.js.errors.Error, BrokerOutage, TimeoutError) as error:
                _log.info("agents' events wait for the broker", reason=repr(error))
            await asyncio.sleep(backoff.next_s())

    async def _consume(self, backoff: Backoff) -> None:
        pull = await self._link.js.pull_subscribe_bind(AGENT_EVENTS_CONSUMER.durable, stream=AGENT_EVENTS.name)
        try:
            while self._link.connected:
                try:
                    messages = await pull.fetch(FETCH_COUNT, timeout=FETCH_WAIT_S)
                except (nats.errors.TimeoutError, TimeoutError):
                    await self._link.js.consumer_info(AGENT_EVENTS.name, AGENT_EVENTS_CONSUMER.durable)
                    continue
                backoff.reset()
                for message in messages:
                    await self._take(message)
                    await message.ack()
        finally:
            if self._link.connected:
                await pull.unsubscribe()

    async def _take(self, message: Msg) -> None:
        try:
            sid = subjects.sid_of(message.subject)
            event = codec.decode(message.data, AgentEvent)
        except Refusal as refusal:
            _log.warning("an agent's event cannot be read", subject=message.subject, reason=refusal.code)
            return
        now = self._context.clock.now()
        async with self._context.database.write() as session:
            server = await store.find_by_slug(session, sid)
            if server is None:
                return
            if event.type == DRIFT:
                server.drift_at = now
            if server.mode != MAINTENANCE or event.type not in HELD:
                note_event(session, event.type, now, server=sid, details=event.details | {"agent_event_id": event.id})
            if event.type in ERRORS:
                await store.note_error(session, server.id, ERRORS[event.type], now)
        self._context.presence.touch(sid)
