"""What a server should run and does not: changes on their way, refused entities, strays, in people's words."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.apply import Degraded
from xfleet_contracts.control import ServerDiff, StateLine
from xfleet_contracts.desired_state import StatePoint
from xfleet_controller.auth.rights import Actor, authorize
from xfleet_controller.clients.models import Client, ClientInbound
from xfleet_controller.context import Context
from xfleet_controller.errors import NotFound
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.servers import store
from xfleet_controller.servers.index import Name
from xfleet_controller.servers.models import Server, ServerRevision, StateEntity, StatePointRow, StrayEntity
from xfleet_controller.servers.naming import Names, load_names

MAX_LINES = 200
MAX_TEXT = 300
STATE = "state"
"""Kind of the line that says that a server is at a point nobody knows."""


async def server_diff(context: Context, actor: Actor, server_id: int) -> ServerDiff:
    """What the server should run and does not, at most `MAX_LINES` lines. Raises `NotFound`."""
    authorize(actor, "servers.read")
    async with context.database.read() as session:
        found = await store.find_server(session, server_id)
        if found is None:
            raise NotFound("There is no such server.")
        server, row = found
        held, applied_revision = _where(context, server, row)
        pending, pending_count = await _pending(session, row, held, applied_revision)
        degraded = msgspec.convert(row.degraded, list[Degraded])
        strays = await list_strays(session, server_id)
        named: list[Name] = [(each.kind, each.entity_id) for each, _ in pending]
        named += [(each.key.kind, each.key.id) for each in degraded]
        names = await load_names(session, [*named, *strays])
        lines = [_pending_line(each, names, is_new=is_new) for each, is_new in pending]
        if held != _point_of(row) and not await _knows(session, row, held):
            text = "The server holds a state this database never had; it is told everything anew."
            lines.insert(0, StateLine(kind=STATE, id="", change="change", text=text))
    lines += [_degraded_line(each, names) for each in degraded]
    lines += [StateLine(kind=kind, id=key, change="stray", name=names.of((kind, key))) for kind, key in strays]
    return ServerDiff(
        server=server.slug,
        status=context.presence.status(server.slug, server.status),
        desired_revision=row.desired_revision,
        wanted_revision=held.revision,
        applied_revision=applied_revision,
        lines=tuple(lines[:MAX_LINES]),
        more_count=max(0, pending_count - len(pending)) + max(0, len(lines) - MAX_LINES),
    )


async def list_strays(session: AsyncSession, server_id: int) -> list[Name]:
    """The entities only the agent knew, inbounds before their clients."""
    query = select(StrayEntity.kind, StrayEntity.entity_id).where(StrayEntity.server_id == server_id)
    rows = await session.execute(query.order_by(StrayEntity.kind.desc(), StrayEntity.entity_id))
    return [(kind, entity_id) for kind, entity_id in rows]


def _where(context: Context, server: Server, row: ServerRevision) -> tuple[StatePoint, int]:
    """The point the agent holds and the revision it runs: the newest beat's word, else what is stored."""
    seen = context.presence.get(server.slug)
    if seen is not None and seen.beat.wanted_revision >= row.wanted_revision:
        beat = seen.beat
        applied_revision = max(beat.applied_revision, row.applied_revision)
        return StatePoint(revision=beat.wanted_revision, digest=beat.wanted_digest), applied_revision
    return StatePoint(revision=row.wanted_revision, digest=row.wanted_digest), row.applied_revision


def _point_of(row: ServerRevision) -> StatePoint:
    return StatePoint(revision=row.desired_revision, digest=row.desired_digest)


async def _knows(session: AsyncSession, row: ServerRevision, held: StatePoint) -> bool:
    if held.revision == 0:
        return True
    point = await session.get(StatePointRow, (row.server_id, held.revision))
    return point is not None and point.digest == held.digest


async def _pending(
    session: AsyncSession, row: ServerRevision, held: StatePoint, applied_revision: int
) -> tuple[Sequence[tuple[StateEntity, bool]], int]:
    """Entities that changed after what the agent runs, each with whether it is new there; and how many there are."""
    base = min(held.revision, applied_revision)
    condition = (StateEntity.server_id == row.server_id, StateEntity.revision > base)
    if base == 0:
        condition = (*condition, StateEntity.removed.is_(False))
    total = await session.scalar(select(func.count()).select_from(StateEntity).where(*condition)) or 0
    query = select(StateEntity).where(*condition).order_by(StateEntity.kind.desc(), StateEntity.entity_id)
    entities = (await session.scalars(query.limit(MAX_LINES))).all()
    point = await session.get(StatePointRow, (row.server_id, base))
    if base == 0 or point is None:
        return [(each, base == 0) for each in entities], total
    new = await _made_after(session, entities, point)
    return [(each, (each.kind, each.entity_id) in new) for each in entities], total


async def _made_after(session: AsyncSession, entities: Sequence[StateEntity], point: StatePointRow) -> set[Name]:
    """Which of these inbounds and clients on inbounds did not exist yet at that point."""
    inbounds = [int(each.entity_id) for each in entities if each.kind == "inbound"]
    clients = [int(each.entity_id.partition(".")[0]) for each in entities if each.kind == "client"]
    rows = await session.execute(
        select(Inbound.ref).where(Inbound.ref.in_(inbounds), Inbound.created_at > point.created_at)
    )
    new: set[Name] = {("inbound", str(ref)) for (ref,) in rows}
    links: Any = await session.execute(
        select(Client.ref, Inbound.ref)
        .join(ClientInbound, ClientInbound.client_id == Client.id)
        .join(Inbound, Inbound.id == ClientInbound.inbound_id)
        .where(Client.ref.in_(clients), ClientInbound.created_at > point.created_at)
    )
    return new | {("client", f"{client}.{inbound}") for client, inbound in links}


def _pending_line(entity: StateEntity, names: Names, *, is_new: bool) -> StateLine:
    change: Literal["add", "change", "remove"] = "add" if is_new else "change"
    if entity.removed:
        change = "remove"
    return StateLine(
        kind=entity.kind,
        id=entity.entity_id,
        change=change,
        name=names.of((entity.kind, entity.entity_id)),
        text=f"waits since revision {entity.revision}",
    )


def _degraded_line(each: Degraded, names: Names) -> StateLine:
    kept = "its last good version goes on running" if each.kept == "previous" else "it does not run"
    text = f"{each.path}: {each.reason}" if each.path else each.reason
    return StateLine(
        kind=each.key.kind,
        id=each.key.id,
        change="degraded",
        name=names.of((each.key.kind, each.key.id)),
        text=f"{text[:MAX_TEXT]} ({each.code}; {kept})",
    )
