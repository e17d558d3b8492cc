"""Every statement of the ledger's ingest, and what `rpc ledger` reads."""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import and_, delete, func, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.clients.models import Tombstone
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.servers.models import Server
from xfleet_controller.servers.strays import stray_client_refs, stray_inbound_servers
from xfleet_controller.tables import Base
from xfleet_controller.traffic.bulk import INT, TEXT, AddingUpsert, select_members
from xfleet_controller.traffic.ledger import (
    EARLIEST,
    Accepted,
    BatchKey,
    Commit,
    Cursor,
    CursorKey,
    Rejected,
    ServerFact,
    Sums,
    contributions,
    moment,
)
from xfleet_controller.traffic.models import (
    ClientTotal,
    LedgerBody,
    LedgerCursor,
    LedgerGap,
    LedgerKey,
    RejectedBatch,
)

IN_LIST = 400
ABOVE_FLOOR_COUNT = 20_000
EPOCHS_AT_ONCE = 100
"""Conditions in one statement: SQLite takes a thousand at most."""

CLIENT_TOTALS = AddingUpsert(
    table="client_totals",
    keys=(("client_ref", INT),),
    adds=("up_bytes", "down_bytes"),
    latest=("last_online_at",),
    also=(("period_up_bytes", "up_bytes"), ("period_down_bytes", "down_bytes")),
)
TAG_TOTALS = AddingUpsert(
    table="tag_totals",
    keys=(("server_id", INT), ("direction", TEXT), ("tag", TEXT)),
    adds=("up_bytes", "down_bytes"),
)
SERVER_MINUTES = AddingUpsert(
    table="server_minutes", keys=(("server_id", INT), ("minute", INT)), adds=("up_bytes", "down_bytes")
)


async def find_servers(session: AsyncSession, slugs: Collection[str]) -> dict[str, ServerFact]:
    """The servers of these names that exist, or did: batches may still be on their way when a server is deleted."""
    rows = await session.execute(select(Server.slug, Server.id, Server.created_at).where(Server.slug.in_(slugs)))
    found = {slug: ServerFact(server_id, created_at) for slug, server_id, created_at in rows}
    if missing := set(slugs) - found.keys():
        gone = await session.execute(
            select(Tombstone.key, Tombstone.server_id).where(Tombstone.kind == "server", Tombstone.key.in_(missing))
        )
        found.update((slug, ServerFact(server_id, EARLIEST)) for slug, server_id in gone if server_id is not None)
    return found


async def find_inbound_servers(session: AsyncSession, refs: Collection[int]) -> dict[int, int]:
    """The server of each of these inbounds that is or was."""
    found: dict[int, int] = {}
    for part in _parts(refs):
        live = await session.execute(select(Inbound.ref, Inbound.server_id).where(Inbound.ref.in_(part)))
        found.update((ref, server_id) for ref, server_id in live)
        gone = await session.execute(
            select(Tombstone.key, Tombstone.server_id).where(
                Tombstone.kind == "inbound", Tombstone.key.in_([str(ref) for ref in part])
            )
        )
        found.update((int(key), server_id) for key, server_id in gone if server_id is not None)
    if missing := set(refs) - found.keys():
        for part in _parts(missing):
            found.update(await stray_inbound_servers(session, part))
    return found


async def find_clients(session: AsyncSession, refs: Collection[int]) -> set[int]:
    """Those of these refs that are or were a client."""
    live = await select_members(session, "SELECT ref FROM clients WHERE ref IN ({members})", refs)
    found = {row[0] for row in live}
    for part in _parts(set(refs) - found):
        gone = await session.scalars(
            select(Tombstone.key).where(Tombstone.kind == "client", Tombstone.key.in_([str(ref) for ref in part]))
        )
        found.update(int(key) for key in gone)
    if missing := set(refs) - found:
        found |= missing & await stray_client_refs(session)
    return found


async def lock_cursors(session: AsyncSession, keys: Iterable[CursorKey], now: datetime) -> dict[CursorKey, Cursor]:
    """These cursors, made when missing, and ours alone until the transaction ends."""
    wanted = sorted(keys)
    rows = [
        {"server_id": s, "epoch": e, "floor": 0, "digest": "", "instance": "", "created_at": now, "updated_at": now}
        for s, e in wanted
    ]
    await session.execute(_insert(session, LedgerCursor).on_conflict_do_nothing(), rows)
    found = await session.execute(
        select(LedgerCursor.server_id, LedgerCursor.epoch, LedgerCursor.floor, LedgerCursor.digest)
        .where(_is_one_of(LedgerCursor.server_id, LedgerCursor.epoch, wanted))
        .order_by(LedgerCursor.server_id, LedgerCursor.epoch)
        .with_for_update()
    )
    return {(server_id, epoch): Cursor(floor, digest) for server_id, epoch, floor, digest in found}


async def find_last_commit(session: AsyncSession, server_id: int) -> datetime | None:
    """When the ledger last committed anything of a server."""
    return await session.scalar(select(func.max(LedgerCursor.updated_at)).where(LedgerCursor.server_id == server_id))


async def find_digests(session: AsyncSession, keys: Collection[BatchKey]) -> dict[BatchKey, str]:
    """Digests of those of these batches that are committed."""
    found: dict[BatchKey, str] = {}
    for table in (LedgerBody, LedgerKey):
        rows = await session.execute(
            select(table.server_id, table.epoch, table.seq, table.digest).where(_names_one_of(table, keys))
        )
        found.update(((server_id, epoch, seq), digest) for server_id, epoch, seq, digest in rows)
    return found


async def find_above_floor(
    session: AsyncSession, cursors: Mapping[CursorKey, Cursor]
) -> dict[CursorKey, dict[int, str]]:
    """Committed batches above these floors: there are any only while an earlier one is missing."""
    rows = await session.execute(
        select(LedgerKey.server_id, LedgerKey.epoch, LedgerKey.seq, LedgerKey.digest)
        .where(_is_one_of(LedgerKey.server_id, LedgerKey.epoch, sorted(cursors)))
        .order_by(LedgerKey.seq)
        .limit(ABOVE_FLOOR_COUNT)
    )
    found: dict[CursorKey, dict[int, str]] = {}
    for server_id, epoch, seq, digest in rows:
        found.setdefault((server_id, epoch), {})[seq] = digest
    if len(cursors) > 1 and sum(map(len, found.values())) == ABOVE_FLOOR_COUNT:
        for key in sorted(cursors):  # one server's many holes must not hide another's few
            found |= await find_above_floor(session, {key: cursors[key]})
    return found


async def find_ends(session: AsyncSession, keys: Collection[BatchKey]) -> dict[BatchKey, datetime]:
    """Ends of those of these batches that are committed and still named."""
    rows = await session.execute(
        select(LedgerBody.server_id, LedgerBody.epoch, LedgerBody.seq, LedgerBody.to_at).where(
            _names_one_of(LedgerBody, keys)
        )
    )
    return {(server_id, epoch, seq): to_at for server_id, epoch, seq, to_at in rows}


async def write_commit(session: AsyncSession, commit: Commit, now: datetime) -> set[str]:
    """Writes everything a commit decided. Returns the digests of what was set aside for the first time."""
    if commit.accepted:
        await _write_batches(session, commit, now)
        await _add_totals(session, commit)
        await _move_floors(session, commit, now)
    return await write_rejected(session, commit.rejected, now)


async def write_rejected(session: AsyncSession, rejected: Sequence[Rejected], now: datetime) -> set[str]:
    """Keeps what was set aside, each message once per reason. Returns the digests that are new."""
    if not rejected:
        return set()
    rows = {
        (each.sid, each.reason, each.digest): {
            "server_id": each.server_id,
            "sid": each.sid,
            "epoch": each.epoch,
            "seq": each.seq,
            "reason": each.reason,
            "digest": each.digest,
            "detail": each.detail,
            "payload": each.payload,
            "received_at": now,
        }
        for each in rejected
    }
    statement = _insert(session, RejectedBatch).on_conflict_do_nothing().returning(RejectedBatch.digest)
    return set((await session.scalars(statement, [rows[key] for key in sorted(rows)])).all())


async def list_marks(
    session: AsyncSession, server_id: int, named: Collection[str], newest_count: int
) -> list[tuple[str, int, str]]:
    """Epoch, floor and digest of the named epochs of a server, and of those that moved last."""
    columns = select(LedgerCursor.epoch, LedgerCursor.floor, LedgerCursor.digest)
    found: dict[str, tuple[int, str]] = {}
    for part in _parts(named):
        rows = await session.execute(columns.where(LedgerCursor.server_id == server_id, LedgerCursor.epoch.in_(part)))
        found.update((epoch, (floor, digest)) for epoch, floor, digest in rows)
    newest = await session.execute(
        columns.where(LedgerCursor.server_id == server_id)
        .order_by(LedgerCursor.updated_at.desc(), LedgerCursor.epoch)
        .limit(newest_count)
    )
    found.update((epoch, (floor, digest)) for epoch, floor, digest in newest)
    return [(epoch, floor, digest) for epoch, (floor, digest) in found.items()]


async def list_names_of_starts(
    session: AsyncSession, server_id: int, starts: Collection[str], known: Mapping[str, int], limit: int
) -> list[tuple[str, int, str, bool]]:
    """Epoch, seq, digest and whether the body is kept of committed batches of these starts beyond what is known."""
    of_starts = (LedgerBody.server_id == server_id, LedgerBody.start_id.in_(starts))
    last = select(LedgerBody.epoch, func.max(LedgerBody.seq)).where(*of_starts).group_by(LedgerBody.epoch)
    unknown = sorted(epoch for epoch, seq in await session.execute(last) if seq > known.get(epoch, 0))
    found: list[tuple[str, int, str, bool]] = []
    for part in _parts(unknown, EPOCHS_AT_ONCE):
        beyond = [and_(LedgerBody.epoch == epoch, LedgerBody.seq > known.get(epoch, 0)) for epoch in part]
        rows = await session.execute(
            select(LedgerBody.epoch, LedgerBody.seq, LedgerBody.digest, LedgerBody.body.is_not(None))
            .where(*of_starts, or_(*beyond))
            .order_by(LedgerBody.epoch, LedgerBody.seq)
            .limit(limit - len(found))
        )
        found += [(epoch, seq, digest, kept) for epoch, seq, digest, kept in rows]
        if len(found) >= limit:
            break
    return found


async def find_body(session: AsyncSession, server_id: int, epoch: str, seq: int) -> bytes | None:
    """A committed batch as it is kept; None when there is none or its body is gone."""
    return await session.scalar(
        select(LedgerBody.body).where(
            LedgerBody.server_id == server_id, LedgerBody.epoch == epoch, LedgerBody.seq == seq
        )
    )


async def set_server_error(session: AsyncSession, server_id: int, text: str) -> None:
    """What is wrong with a server, for its card."""
    await session.execute(update(Server).where(Server.id == server_id).values(last_error=text))


async def _write_batches(session: AsyncSession, commit: Commit, now: datetime) -> None:
    ordered = sorted(commit.accepted, key=lambda each: (each.server_id, *each.reading.key))
    names = [
        {
            "server_id": each.server_id,
            "epoch": each.reading.key[0],
            "seq": each.reading.key[1],
            "digest": each.reading.digest,
        }
        for each in ordered
    ]
    bodies = [
        {
            **name,
            "start_id": each.reading.parsed.head.start_id,
            "from_at": each.from_at,
            "to_at": each.to_at,
            "received_at": now,
            "rows_count": len(each.clients) + len(each.tags),
            "body": each.reading.packed or None,
            "body_bytes": len(each.reading.packed),
            "skipped": each.skipped,
            "rolled_up": each.reading.refused is not None,
        }
        for name, each in zip(names, ordered, strict=True)
    ]
    above = [name for name in names if name["seq"] > commit.floor_of((name["server_id"], name["epoch"]))]
    if above:
        await session.execute(_insert(session, LedgerKey), above)
    await session.execute(_insert(session, LedgerBody), bodies)
    await _write_gaps(session, ordered)


async def _write_gaps(session: AsyncSession, accepted: Sequence[Accepted]) -> None:
    gaps = [
        LedgerGap(
            server_id=each.server_id,
            epoch=each.reading.key[0],
            seq=each.reading.key[1],
            reason=gap.reason,
            start_id=gap.start_id,
            from_at=moment(min(gap.from_at_ms, gap.to_at_ms), each.to_at),
            to_at=moment(gap.to_at_ms, each.to_at),
        )
        for each in accepted
        for gap in each.reading.parsed.gaps
    ]
    session.add_all(gaps)
    await session.flush()


async def _add_totals(session: AsyncSession, commit: Commit) -> None:
    sums = commit.sums
    await CLIENT_TOTALS.run(session, await asyncio.to_thread(_client_columns, sums))
    await _take_back_from_periods(session, commit)
    tags = sorted(sums.tags)
    await TAG_TOTALS.run(session, [*_columns(tags, 3), *_columns([sums.tags[key] for key in tags], 2)])
    minutes = sorted(sums.minutes)
    await SERVER_MINUTES.run(session, [*_columns(minutes, 2), *_columns([sums.minutes[key] for key in minutes], 2)])


def _client_columns(sums: Sums) -> list[list[int]]:
    refs = sorted(sums.client_up)
    figures = (sums.client_up, sums.client_down, sums.client_seen_ms)
    return [refs, *([figure[ref] for ref in refs] for figure in figures)]


async def _take_back_from_periods(session: AsyncSession, commit: Commit) -> None:
    """Rows that ended before their client's last reset count in history only; the totals are locked by us by now."""
    first_end = min(each.to_at for each in commit.accepted)
    resets = await session.execute(
        select(ClientTotal.client_ref, ClientTotal.period_started_at).where(ClientTotal.period_started_at > first_end)
    )
    started = {ref: at for ref, at in resets if at is not None and ref in commit.sums.client_up}
    for ref, (up, down) in sorted(contributions(commit.accepted, started).items()):
        await session.execute(
            update(ClientTotal)
            .where(ClientTotal.client_ref == ref)
            .values(
                period_up_bytes=ClientTotal.period_up_bytes - up, period_down_bytes=ClientTotal.period_down_bytes - down
            )
        )


async def _move_floors(session: AsyncSession, commit: Commit, now: datetime) -> None:
    rows = {
        (each.server_id, each.reading.key[0]): {
            "server_id": each.server_id,
            "epoch": each.reading.key[0],
            "floor": commit.cursors[each.server_id, each.reading.key[0]].floor,
            "digest": commit.cursors[each.server_id, each.reading.key[0]].digest,
            "instance": each.reading.parsed.head.instance,
            "created_at": now,
            "updated_at": now,
        }
        for each in commit.accepted
    }
    insert = _insert(session, LedgerCursor)
    moved = {name: insert.excluded[name] for name in ("floor", "digest", "instance", "updated_at")}
    statement = insert.on_conflict_do_update(index_elements=["server_id", "epoch"], set_=moved)
    await session.execute(statement, [rows[key] for key in sorted(rows)])
    for server_id, epoch in sorted(commit.closed):
        await session.execute(
            delete(LedgerKey).where(
                LedgerKey.server_id == server_id,
                LedgerKey.epoch == epoch,
                LedgerKey.seq <= commit.cursors[server_id, epoch].floor,
            )
        )


def _insert(session: AsyncSession, table: type[Base]) -> Any:
    name = session.get_bind().dialect.name
    return sqlite.insert(table) if name == "sqlite" else postgresql.insert(table)


def _is_one_of(first: Any, second: Any, pairs: Collection[CursorKey]) -> Any:
    return tuple_(first, second).in_(list(pairs))


def _names_one_of(table: type[LedgerBody] | type[LedgerKey], keys: Collection[BatchKey]) -> Any:
    return tuple_(table.server_id, table.epoch, table.seq).in_(sorted(keys))


def _columns(rows: Sequence[Sequence[Any]], count: int) -> list[list[Any]]:
    return [[row[place] for row in rows] for place in range(count)]


def _parts(values: Collection[Any], size: int = IN_LIST) -> list[list[Any]]:
    ordered = sorted(values)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]
