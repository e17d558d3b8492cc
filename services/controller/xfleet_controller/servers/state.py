"""The one way a server's desired state changes: lock, change, compare, number, note, in one transaction.

Whoever writes anything that a server runs does it inside `changing`. The revision rows are locked first and in order,
so two writers never wait for each other in a circle, and what is read inside cannot move.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.desired_state import EMPTY_DIGEST
from xfleet_controller.auth.rights import Actor
from xfleet_controller.context import Context
from xfleet_controller.outbox import note_dirty_servers
from xfleet_controller.servers.compile import Scope, compile_entities
from xfleet_controller.servers.index import Name, StateIndex
from xfleet_controller.servers.models import Server, ServerRevision, StateEntity, StatePointRow
from xfleet_controller.servers.versions import note_version
from xfleet_controller.sql import batches, insert_into
from xfleet_controller.tasks.models import ServerTask
from xfleet_controller.trace import current_trace_id

MAX_NAMED_ENTITIES = 50
"""A task names at most this many of the entities it touched."""


@dataclass(kw_only=True)
class Change:
    """What a writer tells and learns about a change."""

    now: datetime
    """The moment of the change, the same in every row it writes."""
    scope: Scope
    """May be set or widened inside the block, before it ends."""
    task_ids: list[int] = field(default_factory=list[int])
    """One task per server whose desired state moved; filled when the block ends."""


def state_record(server_id: int, name: Name) -> str:
    """Name under which an entity's body is sealed."""
    return f"state:{server_id}:{name[0]}:{name[1]}"


async def add_revision_row(session: AsyncSession, server_id: int, now: datetime) -> None:
    """A new server's revision row, before its first state."""
    session.add(ServerRevision(server_id=server_id, desired_digest=EMPTY_DIGEST, changed_at=now))
    session.add(StatePointRow(server_id=server_id, revision=0, digest=EMPTY_DIGEST, created_at=now))
    await session.flush()


@asynccontextmanager
async def changing(
    session: AsyncSession,
    context: Context,
    server_ids: Iterable[int],
    *,
    operation: str,
    actor: Actor,
    scope: Scope | None = None,
) -> AsyncIterator[Change]:
    """Locks the servers, lets the caller change rows, then moves the desired state of those that came out different."""
    wanted = sorted(set(server_ids))
    rows = {
        row.server_id: row
        for row in await session.scalars(
            select(ServerRevision)
            .where(ServerRevision.server_id.in_(wanted))
            .order_by(ServerRevision.server_id)
            .with_for_update()
            .execution_options(populate_existing=True)
        )
    }
    change = Change(now=context.clock.now(), scope=scope or Scope())
    yield change
    await session.flush()
    moves = await _plan_moves(session, context, rows, change.scope)
    await _store(session, context, moves)
    for move in moves:
        _note_move(session, context, move, change.now)
    await note_dirty_servers(session, [move.row.server_id for move in moves], change.now)
    tasks = await _add_tasks(session, moves, change.now, operation, actor)
    if change.scope.whole or change.scope.inbounds:
        for row in rows.values():
            await note_version(session, context.vault, row, operation=operation, actor=actor.label, now=change.now)
    change.task_ids.extend(tasks)


@dataclass(frozen=True, kw_only=True)
class _Move:
    """What comes out different on one server."""

    row: ServerRevision
    put: dict[Name, tuple[str, bytes]]
    """Hash and body."""
    gone: list[Name]
    index: StateIndex


async def _plan_moves(
    session: AsyncSession, context: Context, rows: Mapping[int, ServerRevision], scope: Scope
) -> list[_Move]:
    servers = [
        server
        for ids in batches(sorted(rows))
        for server in await session.scalars(select(Server).where(Server.id.in_(ids)).order_by(Server.id))
    ]
    moves: list[_Move] = []
    for server_id, bodies in (await compile_entities(session, context.vault, servers, scope)).items():
        index = await context.indexes.load(session, rows[server_id])
        hashes = {name: sha256(body).hexdigest() for name, body in bodies.items()}
        put = {name: (digest, bodies[name]) for name, digest in hashes.items() if index.find(name) != digest}
        gone = sorted(scope.names_in(index) - bodies.keys())
        if put or gone:
            changed = index.after({name: digest for name, (digest, _) in put.items()}, gone)
            moves.append(_Move(row=rows[server_id], put=put, gone=gone, index=changed))
    return moves


def _note_move(session: AsyncSession, context: Context, move: _Move, now: datetime) -> None:
    row = move.row
    row.desired_revision += 1
    row.desired_digest = move.index.digest
    row.changed_at = now
    session.add(
        StatePointRow(server_id=row.server_id, revision=row.desired_revision, digest=row.desired_digest, created_at=now)
    )
    context.indexes.keep(row, move.index)


async def _add_tasks(
    session: AsyncSession, moves: Sequence[_Move], now: datetime, operation: str, actor: Actor
) -> list[int]:
    """One task per server, in two statements however many there are; their ids."""
    await session.flush()
    values = [
        {
            "server_id": move.row.server_id,
            "operation": operation,
            "revision": move.row.desired_revision,
            "request": {
                "entities": [list(name) for name in (*sorted(move.put), *move.gone)][:MAX_NAMED_ENTITIES],
                "put_count": len(move.put),
                "remove_count": len(move.gone),
            },
            "response": {},
            "actor": actor.label[:100],
            "trace_id": current_trace_id(),
            "created_at": now,
        }
        for move in moves
    ]
    if not values:
        return []
    await session.execute(insert(ServerTask), values)
    ids: list[int] = []
    for part in batches([(move.row.server_id, move.row.desired_revision) for move in moves]):
        wanted = dict(part)
        rows = await session.execute(
            select(ServerTask.id, ServerTask.server_id, ServerTask.revision).where(
                ServerTask.server_id.in_(sorted(wanted)), ServerTask.created_at == now
            )
        )
        ids += [task_id for task_id, server_id, revision in rows if wanted.get(server_id) == revision]
    return sorted(ids)


async def _store(session: AsyncSession, context: Context, moves: Sequence[_Move]) -> None:
    values: list[dict[str, Any]] = []
    for move in moves:
        common: dict[str, Any] = {"server_id": move.row.server_id, "revision": move.row.desired_revision + 1}
        for name, (digest, body) in sorted(move.put.items()):
            sealed = context.vault.seal(state_record(move.row.server_id, name), body)
            values.append(
                common
                | {"kind": name[0], "entity_id": name[1], "sha256": digest, "body_sealed": sealed, "removed": False}
            )
        values += [
            common | {"kind": name[0], "entity_id": name[1], "sha256": "", "body_sealed": None, "removed": True}
            for name in move.gone
        ]
    if not values:
        return
    statement = insert_into(session, StateEntity)
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["server_id", "kind", "entity_id"],
            set_={key: statement.excluded[key] for key in ("sha256", "body_sealed", "revision", "removed")},
        ),
        values,
    )
