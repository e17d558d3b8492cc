"""The watch on connections: an agent that floods the broker is cut, and one that goes on is suspended.

nats-server has no limit on rates. What an agent sends in excess is refused by everybody's token buckets anyway; this
keeps it from taking the broker's time. Only identities of servers are looked at, never our own.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from xfleet_controller.audit.store import note
from xfleet_controller.auth.rights import SYSTEM, Actor, authorize
from xfleet_controller.context import Context
from xfleet_controller.errors import Conflict, NotFound
from xfleet_controller.fleet import store
from xfleet_controller.fleet.models import Revocation
from xfleet_controller.fleet.service import SUSPENDED, revoke_as
from xfleet_controller.outbox import note_event
from xfleet_controller.servers.models import Server
from xfleet_nats.system import Use, kick, list_use
from xfleet_runtime.broker import BrokerOutage
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
LOOK_EVERY_S = 10.0
LIFTED = "suspended, lifted"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one identity may do; an agent at work stays far below."""

    connections: int = 8
    """At once: one, and two while it renews; a machine that lost its line leaves dead ones for half a minute."""
    messages_per_s: float = 2000.0
    bytes_per_s: float = 32.0 * 1024 * 1024
    strikes: int = 3
    """Times it is found at it until it is suspended."""
    forgiven_after_s: float = 600.0


class NotSuspended(Conflict):
    """Nothing to lift."""

    code = "not_suspended"
    message = "This server is not suspended."


def find_offenders(
    before: Mapping[tuple[str, int], Use], now: Iterable[Use], over_s: float, limits: Limits
) -> dict[str, str]:
    """Identities above a limit, with which; a connection that is new counts from its beginning."""
    connections, messages, sizes = (
        defaultdict[str, int](int),
        defaultdict[str, float](float),
        defaultdict[str, float](float),
    )
    for use in now:
        held = use.connection
        last = before.get((held.server_id, held.cid))
        connections[held.nkey] += 1
        messages[held.nkey] += (use.messages - (last.messages if last else 0)) / over_s
        sizes[held.nkey] += (use.size_bytes - (last.size_bytes if last else 0)) / over_s
    found: dict[str, str] = {}
    for nkey in connections:
        if connections[nkey] > limits.connections:
            found[nkey] = f"{connections[nkey]} connections at once"
        elif messages[nkey] > limits.messages_per_s:
            found[nkey] = f"{messages[nkey]:.0f} messages a second"
        elif sizes[nkey] > limits.bytes_per_s:
            found[nkey] = f"{sizes[nkey] / 1024 / 1024:.0f} MiB a second"
    return found


class Watch:
    """Looks at who sends how much; the memory of strikes is this controller's own."""

    def __init__(self, context: Context, limits: Limits | None = None) -> None:
        self._context = context
        self._limits = limits or Limits()
        self._last: dict[tuple[str, int], Use] = {}
        self._looked_at_s: float | None = None
        self._strikes: dict[str, list[float]] = {}

    async def look(self) -> None:
        """Compares with the last look, and acts."""
        context = self._context
        if context.bus is None or context.fleet is None or not context.bus.sys.connected:
            return
        try:
            used = await list_use(context.bus.sys, context.fleet.issuer.keys.fleet_account)
        except BrokerOutage as outage:
            _log.info("the connections could not be looked at", reason=str(outage))
            return
        now_s = context.clock.monotonic_s()
        before, self._last = self._last, {(each.connection.server_id, each.connection.cid): each for each in used}
        since_s, self._looked_at_s = self._looked_at_s, now_s
        if since_s is not None and now_s > since_s:
            for nkey, reason in find_offenders(before, used, now_s - since_s, self._limits).items():
                await self._act(nkey, reason, [each for each in used if each.connection.nkey == nkey])

    async def _act(self, nkey: str, reason: str, used: list[Use]) -> None:
        context, now_s = self._context, self._context.clock.monotonic_s()
        async with context.database.read() as session:
            server = await store.find_server_of(session, nkey)
        if server is None or context.bus is None:
            return
        recent = [at_s for at_s in self._strikes.get(server.slug, []) if now_s - at_s < self._limits.forgiven_after_s]
        self._strikes[server.slug] = [*recent, now_s]
        _log.warning("a server floods the broker", sid=server.slug, reason=reason, strikes=len(recent) + 1)
        if len(recent) + 1 >= self._limits.strikes:
            del self._strikes[server.slug]
            await revoke_as(context, SYSTEM, server.id, SUSPENDED, "server_suspended")
            return
        async with context.database.write() as session:
            note_event(
                session, "server_kicked", context.clock.now(), server=server.slug, subject=server.name,
                details={"reason": reason},
            )  # fmt: skip
        for each in used:
            try:
                await kick(context.bus.sys, each.connection)
            except BrokerOutage as outage:
                _log.info("a connection could not be cut", sid=server.slug, reason=str(outage))


async def lift_suspension(context: Context, actor: Actor, server_id: int) -> None:
    """Lets a suspended server come back: its agent asks for new credentials by itself, over HTTPS.

    The tokens it had stay dead. Raises `NotFound` or `NotSuspended`.
    """
    authorize(actor, "fleet.revoke")
    now = context.clock.now()
    async with context.database.write() as session:
        server = await session.get(Server, server_id)
        if server is None:
            raise NotFound("There is no such server.")
        reasons = await store.list_reasons(session, server_id)
        rows = [row for row in await store.list_certificates(session, server_id) if reasons.get(row.nkey) == SUSPENDED]
        if not rows:
            raise NotSuspended
        for row in rows:
            row.revoked_at = None
            (await session.get_one(Revocation, row.nkey)).reason = LIFTED
        server.last_error = ""
        note(session, actor, "lift_suspension", "server", str(server_id), now, name=server.name)
        note_event(session, "server_suspension_lifted", now, server=server.slug, subject=server.name)
