"""The one way a server's desired state changes: lock, change, compare, number, note, in one transaction.

Whoever writes anything that a server runs does it inside `changing`. The revision rows are locked first and in order,
so two writers never wait for each other in a circle, and what is read inside cannot move.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.desired_state import EMPTY_DIGEST
from xfleet_controller.auth.rights import Actor
from xfleet_controller.context import Context
from xfleet_controller.outbox import note_dirty_server
from xfleet_controller.servers.compile import Scope, compile_entities
from xfleet_controller.servers.index import Name
from xfleet_controller.servers.models import Server, ServerRevision, StateEntity, StatePointRow
from xfleet_controller.sql import insert_into
from xfleet_controller.tasks.models import ServerTask

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
    tasks = [
        task
        for server_id in wanted
        if server_id in rows
        and (task := await _move(session, context, rows[server_id], change, operation, actor)) is not None
    ]
    await session.flush()
    change.task_ids.extend(task.id for task in tasks)


async def _move(
    session: AsyncSession, context: Context, row: ServerRevision, change: Change, operation: str, actor: Actor
) -> ServerTask | None:
    server = await session.get_one(Server, row.server_id)
    index = await context.indexes.load(session, row)
    bodies = await compile_entities(session, context.vault, server, change.scope)
    hashes = {name: sha256(body).hexdigest() for name, body in bodies.items()}
    put = {name: digest for name, digest in hashes.items() if index.find(name) != digest}
    gone = sorted(change.scope.names_in(index) - bodies.keys())
    if not put and not gone:
        return None
    now = change.now
    changed = index.after(put, gone)
    row.desired_revision += 1
    row.desired_digest = changed.digest
    row.changed_at = now
    await _store(session, context, row, {name: (put[name], bodies[name]) for name in sorted(put)}, gone)
    session.add(
        StatePointRow(server_id=row.server_id, revision=row.desired_revision, digest=row.desired_digest, created_at=now)
    )
    context.indexes.keep(row, changed)
    note_dirty_server(session, row.server_id, now)
    named = [list(name) for name in (*sorted(put), *gone)][:MAX_NAMED_ENTITIES]
    task = ServerTask(
        server_id=row.server_id,
        operation=operation,
        revision=row.desired_revision,
        request={"entities": named, "put_count": len(put), "remove_count": len(gone)},
        response={},
        actor=actor.label[:100],
        created_at=now,
    )
    session.add(task)
    return task


async def _store(
    session: AsyncSession,
    context: Context,
    row: ServerRevision,
    put: Mapping[Name, tuple[str, bytes]],
    gone: Iterable[Name],
) -> None:
    common: dict[str, Any] = {"server_id": row.server_id, "revision": row.desired_revision}
    values = [
        common
        | {
            "kind": name[0],
            "entity_id": name[1],
            "sha256": digest,
            "body_sealed": context.vault.seal(state_record(row.server_id, name), body),
            "removed": False,
        }
        for name, (digest, body) in put.items()
    ]
    values += [
        common | {"kind": name[0], "entity_id": name[1], "sha256": "", "body_sealed": None, "removed": True}
        for name in gone
    ]
    statement = insert_into(session, StateEntity)
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["server_id", "kind", "entity_id"],
            set_={key: statement.excluded[key] for key in ("sha256", "body_sealed", "revision", "removed")},
        ),
        values,
    )
