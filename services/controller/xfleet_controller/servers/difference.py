"""What to send to a server: the difference from where it is, or everything in chunks."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import cast

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.apply import ApplyOrder
from xfleet_contracts.codec import canonical, sha256_hex
from xfleet_contracts.desired_state import (
    Difference,
    Entity,
    EntityKey,
    Kind,
    SnapshotChunk,
    SnapshotManifest,
    StatePoint,
)
from xfleet_controller.servers.models import ServerRevision, StateChunk, StateEntity, StatePointRow
from xfleet_controller.servers.state import state_record
from xfleet_controller.sql import insert_into
from xfleet_controller.vault import Vault

MAX_ORDER_BYTES = 200 * 1024
"""A difference larger than this travels as a snapshot."""
CHUNK_BYTES = 180 * 1024
CHUNKS_KEPT = timedelta(hours=1)
POINTS_KEPT_COUNT = 1000


def target_of(row: ServerRevision) -> StatePoint:
    """Where the server should be."""
    return StatePoint(revision=row.desired_revision, digest=row.desired_digest)


async def is_known_point(session: AsyncSession, server_id: int, point: StatePoint) -> bool:
    """Whether the server's desired state once was exactly this."""
    row = await session.get(StatePointRow, (server_id, point.revision))
    return row is not None and row.digest == point.digest


async def make_order(
    session: AsyncSession, vault: Vault, row: ServerRevision, base: StatePoint | None, now: datetime
) -> ApplyOrder:
    """The difference from a known base, else (or when that is too much for one message) a snapshot."""
    if base is not None and base.revision < row.desired_revision and await is_known_point(session, row.server_id, base):
        entities = await _list_since(session, row.server_id, base.revision)
        if sum(len(each.body_sealed or b"") for each in entities) < MAX_ORDER_BYTES:
            difference = _difference(vault, row, base, entities)
            if len(canonical(difference)) <= MAX_ORDER_BYTES:
                return ApplyOrder(difference=difference)
    return ApplyOrder(snapshot=await _make_snapshot(session, vault, row, now))


async def find_chunk(session: AsyncSession, vault: Vault, server_id: int, sha256: str) -> bytes | None:
    """A chunk that was offered to this server."""
    row = await session.get(StateChunk, (server_id, sha256))
    return None if row is None else vault.open(_chunk_record(server_id, sha256), row.body_sealed)


async def forget_the_old(session: AsyncSession, now: datetime) -> None:
    """Drops chunks nobody asks for any more, points far behind, and the removal marks before them."""
    await session.execute(delete(StateChunk).where(StateChunk.created_at < now - CHUNKS_KEPT))
    for server_id, revision in await session.execute(select(ServerRevision.server_id, ServerRevision.desired_revision)):
        oldest = revision - POINTS_KEPT_COUNT
        if oldest <= 0:
            continue
        await session.execute(
            delete(StatePointRow).where(StatePointRow.server_id == server_id, StatePointRow.revision < oldest)
        )
        await session.execute(
            delete(StateEntity).where(
                StateEntity.server_id == server_id, StateEntity.removed.is_(True), StateEntity.revision <= oldest
            )
        )


async def _list_since(session: AsyncSession, server_id: int, revision: int) -> Sequence[StateEntity]:
    query = select(StateEntity).where(StateEntity.server_id == server_id, StateEntity.revision > revision)
    return (await session.scalars(query.order_by(StateEntity.kind, StateEntity.entity_id))).all()


def _entity(vault: Vault, row: StateEntity) -> Entity:
    name = (row.kind, row.entity_id)
    body = vault.open(state_record(row.server_id, name), row.body_sealed or b"")
    return Entity(kind=cast("Kind", row.kind), id=row.entity_id, body=msgspec.Raw(body))


def _difference(vault: Vault, row: ServerRevision, base: StatePoint, entities: Sequence[StateEntity]) -> Difference:
    return Difference(
        base=base,
        target=target_of(row),
        put=tuple(_entity(vault, each) for each in entities if not each.removed),
        remove=tuple(EntityKey(kind=cast("Kind", each.kind), id=each.entity_id) for each in entities if each.removed),
    )


async def _make_snapshot(session: AsyncSession, vault: Vault, row: ServerRevision, now: datetime) -> SnapshotManifest:
    query = select(StateEntity).where(StateEntity.server_id == row.server_id, StateEntity.removed.is_(False))
    rows = (await session.scalars(query.order_by(StateEntity.kind, StateEntity.entity_id))).all()
    entities = [_entity(vault, each) for each in rows]
    digests: list[str] = []
    for part in _chunked(entities):
        body = canonical(SnapshotChunk(entities=part))
        digest = sha256_hex(body)
        digests.append(digest)
        statement = insert_into(session, StateChunk).values(
            server_id=row.server_id,
            sha256=digest,
            body_sealed=vault.seal(_chunk_record(row.server_id, digest), body),
            created_at=now,
        )
        await session.execute(
            statement.on_conflict_do_update(index_elements=["server_id", "sha256"], set_={"created_at": now})
        )
    return SnapshotManifest(target=target_of(row), chunks=tuple(digests), entities_count=len(entities))


def _chunked(entities: Sequence[Entity]) -> list[tuple[Entity, ...]]:
    chunks: list[tuple[Entity, ...]] = []
    part: list[Entity] = []
    size_bytes = 0
    for entity in entities:
        length = len(bytes(entity.body)) + len(entity.id) + 64
        if part and size_bytes + length > CHUNK_BYTES:
            chunks.append(tuple(part))
            part, size_bytes = [], 0
        part.append(entity)
        size_bytes += length
    return [*chunks, tuple(part)] if part else chunks


def _chunk_record(server_id: int, sha256: str) -> str:
    return f"chunk:{server_id}:{sha256}"
