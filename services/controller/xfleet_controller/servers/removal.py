"""Deleting a server: `retiring` until its agent has taken everything down and told its last bytes, or by force.

While it retires, its desired state carries no inbound and no client, and no link names it. It is gone, with its keys
revoked, once its agent runs that and neither its spool nor the ledger got a byte for `Presence.stale_after_s`, so that
also what was read last is in the ledger; streams that never end hold it up for `CEILING` only. A server that is away
stays visibly on its way out until it comes back or somebody forces it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.errors import Refusal
from xfleet_controller.audit.store import note
from xfleet_controller.auth.rights import SYSTEM, Actor, authorize
from xfleet_controller.clients.models import Tombstone
from xfleet_controller.context import Context
from xfleet_controller.errors import NotFound
from xfleet_controller.fleet import service as fleet_service
from xfleet_controller.fleet import store as fleet_store
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.outbox import note_event
from xfleet_controller.servers import service, state, store
from xfleet_controller.servers.compile import Scope
from xfleet_controller.servers.models import Server, ServerRevision
from xfleet_controller.servers.presence import ONLINE, Seen
from xfleet_controller.servers.retiring import settle_retired
from xfleet_controller.servers.store import Known
from xfleet_controller.tasks.models import ServerTask
from xfleet_controller.tasks.store import OPEN
from xfleet_controller.traffic.store import find_last_commit
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
OPERATION = "delete_server"
CEILING = timedelta(minutes=10)
"""Bytes that go on coming after the server took everything down keep it no longer than this."""
RETIRING, DELETED = "retiring", "deleted"
MAY_KEEP_RUNNING = (
    "Nobody could tell its machine to stop: Xray may keep serving the clients it knows, uncounted, until the machine "
    "is switched off or the agent is uninstalled there."
)


class InboundInUse(NamedTuple):
    """An inbound that would go with its server."""

    id: int
    remark: str
    port: int
    clients_count: int


class Removal(NamedTuple):
    """What became of the deletion of a server."""

    state: str
    """retiring or deleted."""
    task_ids: list[int]
    warning: str = ""
    """What may keep running."""


class ServerInUse(Refusal):
    """The server still has inbounds, and nobody said that they may go with it."""

    code = "server_in_use"
    status = 409
    message = "This server still has inbounds. Say that they go with it, or delete them first."

    def __init__(self, inbounds: list[InboundInUse]) -> None:
        self.inbounds = inbounds
        super().__init__(inbounds=[each._asdict() for each in inbounds])


async def list_losses(context: Context, actor: Actor, server_id: int) -> list[InboundInUse]:
    """The inbounds that would go with a server."""
    authorize(actor, "servers.read")
    async with context.database.read() as session:
        return await _losses(session, server_id)


async def delete_server(
    context: Context, actor: Actor, server_id: int, *, force: bool = False, with_inbounds: bool = False
) -> Removal:
    """Begins to take a server away; by force, or where no agent ever joined, it is gone at once.

    Raises `NotFound`, or `ServerInUse` when it has inbounds and `with_inbounds` was not said.
    """
    authorize(actor, "servers.write")
    async with context.database.write() as session:
        async with state.changing(
            session, context, [server_id], operation=OPERATION, actor=actor, scope=Scope(whole=True)
        ) as change:
            server = await session.get(Server, server_id, with_for_update=True, populate_existing=True)
            if server is None:
                raise NotFound("There is no such server.")
            losses = await _losses(session, server_id)
            if losses and not with_inbounds:
                raise ServerInUse(losses)
            if server.retiring_at is None:
                server.retiring_at, server.updated_at, server.version = change.now, change.now, server.version + 1
                lost = [each._asdict() for each in losses]
                note(session, actor, OPERATION, "server", str(server_id), change.now, name=server.name, before=lost)
                details = {"inbounds_count": len(losses), "by": actor.label}
                note_event(session, "server_retiring", change.now, server=server.slug, details=details)
            await _bury_inbounds(session, server_id, change.now)
        live, revoked, expired = (await fleet_store.count_identities(session, [server_id], change.now)).get(
            server_id, (0, 0, 0)
        )
        joined = live + revoked + expired > 0
        if force or not joined:
            await _bury(session, server, actor, change.now, forced=force and joined)
    if not (force or not joined):
        return Removal(RETIRING, change.task_ids)
    await _tell_everybody(context)
    return Removal(DELETED, change.task_ids, MAY_KEEP_RUNNING if joined else "")


async def finish_retired(context: Context, known: Mapping[str, Known]) -> int:
    """Takes away the retiring servers that have taken everything down; how many."""
    gone = 0
    for sid, each in known.items():
        if each.retiring_at is None:
            continue
        seen = context.presence.get(sid)
        if seen is None or context.presence.status(sid, each.status) != ONLINE or not _has_told_all(seen):
            continue
        try:
            is_gone = await _finish(context, each, seen)
        except SQLAlchemyError:
            _log.exception("a retiring server cannot be taken away, the others go on", sid=sid)
            continue
        if is_gone:
            gone += 1
            _log.info("server has taken everything down and is gone", sid=sid)
    if gone:
        await _tell_everybody(context)
    return gone


async def _finish(context: Context, known: Known, seen: Seen) -> bool:
    """Takes a retiring server away, where it has taken everything down."""
    async with context.database.write() as session:
        if not await _is_empty_since(session, known, seen, timedelta(seconds=context.presence.stale_after_s)):
            return False
        server, now = await session.get_one(Server, known.id), context.clock.now()
        await _bury_inbounds(session, known.id, now)
        await _bury(session, server, SYSTEM, now, forced=False)
    return True


def _has_told_all(seen: Seen) -> bool:
    spool = seen.beat.spool
    return not spool.open_rows_count and not spool.sealed_batches_count


async def _is_empty_since(session: AsyncSession, known: Known, seen: Seen, quiet: timedelta) -> bool:
    """Whether the server runs its empty state, and was heard long enough after it began to and its last bytes came."""
    row = await session.get(ServerRevision, known.id, with_for_update=True)
    if row is None or known.retiring_at is None:
        return False
    beat = seen.beat
    if (beat.wanted_revision, beat.wanted_digest) != (row.desired_revision, row.desired_digest):
        return False
    if beat.applied_revision < row.desired_revision and beat.xray.status != "stopped":
        return False
    ours = (ServerTask.server_id == known.id, ServerTask.operation == OPERATION)
    if await session.scalar(select(ServerTask.id).where(*ours, ServerTask.status.in_(OPEN)).limit(1)) is not None:
        return False
    done_at = await session.scalar(select(func.max(ServerTask.completed_at)).where(*ours))
    begun_at = max(known.retiring_at, done_at or known.retiring_at)
    heard_at = datetime.fromtimestamp(seen.received_at_ms / 1000, UTC)
    counted_at = await find_last_commit(session, known.id)
    is_quiet = counted_at is None or heard_at >= counted_at + quiet
    return heard_at >= begun_at + quiet and (is_quiet or heard_at >= begun_at + CEILING)


async def _losses(session: AsyncSession, server_id: int) -> list[InboundInUse]:
    rows = await store.list_inbounds(session, server_id)
    return [InboundInUse(row.id, row.remark, row.port, count) for row, count in rows]


async def _bury_inbounds(session: AsyncSession, server_id: int, now: datetime) -> None:
    for row in await session.scalars(select(Inbound).where(Inbound.server_id == server_id).order_by(Inbound.id)):
        if await session.get(Tombstone, ("inbound", str(row.ref))) is None:
            key = str(row.ref)
            session.add(Tombstone(kind="inbound", key=key, name=row.remark, server_id=server_id, deleted_at=now))
        await session.delete(row)
    await session.flush()


async def _bury(session: AsyncSession, server: Server, actor: Actor, now: datetime, *, forced: bool) -> None:
    await fleet_service.revoke_identities(session, server, "server deleted", now)
    session.add(Tombstone(kind="server", key=server.slug, name=server.name, server_id=server.id, deleted_at=now))
    note(session, actor, "server_deleted", "server", str(server.id), now, name=server.name, after={"forced": forced})
    details = {"forced": forced} | ({"warning": MAY_KEEP_RUNNING} if forced else {})
    note_event(session, "server_deleted", now, server=server.slug, subject=server.name, details=details)
    await session.delete(server)
    await settle_retired(session)


async def _tell_everybody(context: Context) -> None:
    await service.refresh_known(context)
    await fleet_service.push_revocations(context)
