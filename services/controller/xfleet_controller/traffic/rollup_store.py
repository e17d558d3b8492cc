"""Every statement of the roll-ups and of keeping the ledger's tables within their limits."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import delete, func, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.traffic.bulk import INT, TEXT, AddingUpsert
from xfleet_controller.traffic.models import LedgerBody, RejectedBatch, ServerMinute

ROLLUP_LOCK = 0x78666C72
STRIP_COUNT = 2000

_BOTH = ("up_bytes", "down_bytes")
HOURLY = AddingUpsert(
    table="traffic_hourly",
    keys=(("client_ref", INT), ("inbound_ref", INT), ("hour", INT)),
    adds=_BOTH,
    fixed=("server_id",),
)
DAILY = AddingUpsert(
    table="traffic_daily",
    keys=(("client_ref", INT), ("inbound_ref", INT), ("day", INT)),
    adds=_BOTH,
    fixed=("server_id",),
)
INBOUND_TOTALS = AddingUpsert(
    table="client_inbound_totals", keys=(("client_ref", INT), ("inbound_ref", INT)), adds=_BOTH, fixed=("server_id",)
)
OUTBOUNDS = AddingUpsert(table="outbound_traffic", keys=(("server_id", INT), ("tag", TEXT), ("hour", INT)), adds=_BOTH)


class Waiting(msgspec.Struct, frozen=True):
    """A stored batch that is not rolled up yet."""

    server_id: int
    epoch: str
    seq: int
    body: bytes
    skipped: dict[str, Any] | None


async def count_waiting(session: AsyncSession) -> tuple[int, int, datetime | None]:
    """How many batches and rows wait, and since when."""
    row = (
        await session.execute(
            select(
                func.count(), func.coalesce(func.sum(LedgerBody.rows_count), 0), func.min(LedgerBody.received_at)
            ).where(~LedgerBody.rolled_up)
        )
    ).one()
    return int(row[0]), int(row[1]), row[2]


async def list_waiting(session: AsyncSession, horizon: datetime, batches_count: int, rows_count: int) -> list[Waiting]:
    """Batches that wait, server by server, at least one and not many more than that many rows."""
    names = await session.execute(
        select(LedgerBody.server_id, LedgerBody.epoch, LedgerBody.seq, LedgerBody.rows_count)
        .where(~LedgerBody.rolled_up, LedgerBody.received_at <= horizon)
        .order_by(LedgerBody.server_id, LedgerBody.received_at)
        .limit(batches_count)
    )
    chosen: list[tuple[int, str, int]] = []
    for server_id, epoch, seq, count in names:
        chosen.append((server_id, epoch, seq))
        rows_count -= count
        if rows_count <= 0:
            break
    if not chosen:
        return []
    found = await session.execute(
        select(LedgerBody.server_id, LedgerBody.epoch, LedgerBody.seq, LedgerBody.body, LedgerBody.skipped).where(
            _named(chosen)
        )
    )
    return [Waiting(*row) for row in found]


async def claim(session: AsyncSession, batches: Sequence[Waiting]) -> bool:
    """Marks these batches as rolled up; False when another controller did so with any of them."""
    if session.get_bind().dialect.name == "postgresql":
        await session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ROLLUP_LOCK})
    marked = await session.execute(
        update(LedgerBody)
        .where(_named([(each.server_id, each.epoch, each.seq) for each in batches]), ~LedgerBody.rolled_up)
        .values(rolled_up=True)
        .execution_options(synchronize_session=False)
    )
    return marked.rowcount == len(batches)  # type: ignore[attr-defined]


class Columns(msgspec.Struct, frozen=True):
    """What a roll-up adds, column by column and sorted."""

    hours: list[list[int]]
    days: list[list[int]]
    totals: list[list[int]]
    outbounds: list[list[Any]]


def columns_of(
    hours: Mapping[tuple[int, int, int, int], Sequence[int]], outbounds: Mapping[tuple[int, str, int], Sequence[int]]
) -> Columns:
    """Sums by client, inbound, hour and server, and those of outbounds, as they are written. Pure."""
    days: dict[tuple[int, int, int, int], list[int]] = {}
    totals: dict[tuple[int, int, int], list[int]] = {}
    for (client, inbound, hour, server_id), (up, down) in hours.items():
        for sums, key in ((days, (client, inbound, hour // 24, server_id)), (totals, (client, inbound, server_id))):
            both = sums.setdefault(key, [0, 0])  # type: ignore[arg-type]
            both[0] += up
            both[1] += down
    keys = sorted(outbounds)
    outbound = [*_columns(keys, 3), [outbounds[key][0] for key in keys], [outbounds[key][1] for key in keys]]
    return Columns(_with_server_last(hours), _with_server_last(days), _with_server_last(totals), outbound)


async def add(session: AsyncSession, columns: Columns) -> None:
    """Adds them to hours, days, totals and outbounds."""
    await HOURLY.run(session, columns.hours)
    await DAILY.run(session, columns.days)
    await INBOUND_TOTALS.run(session, columns.totals)
    await OUTBOUNDS.run(session, columns.outbounds)


async def strip_bodies(session: AsyncSession, most_bytes: int) -> int:
    """Takes the body from the oldest rolled-up batches while all bodies together are too large; returns how many."""
    kept = select(func.coalesce(func.sum(LedgerBody.body_bytes), 0)).where(LedgerBody.body_bytes > 0)
    surplus = int(await session.scalar(kept) or 0) - most_bytes
    if surplus <= 0:
        return 0
    oldest = await session.execute(
        select(LedgerBody.server_id, LedgerBody.epoch, LedgerBody.seq, LedgerBody.body_bytes)
        .where(LedgerBody.body_bytes > 0, LedgerBody.rolled_up)
        .order_by(LedgerBody.received_at)
        .limit(STRIP_COUNT)
    )
    doomed: list[tuple[int, str, int]] = []
    for server_id, epoch, seq, size in oldest:
        if surplus <= 0:
            break
        doomed.append((server_id, epoch, seq))
        surplus -= size
    if doomed:
        await session.execute(
            update(LedgerBody)
            .where(_named(doomed))
            .values(body=None, body_bytes=0)
            .execution_options(synchronize_session=False)
        )
    return len(doomed)


async def forget_names(session: AsyncSession, before: datetime) -> None:
    """Deletes batches without a body that arrived before this moment; cursors stay for ever."""
    await session.execute(
        delete(LedgerBody).where(LedgerBody.received_at < before, LedgerBody.body_bytes == 0, LedgerBody.rolled_up)
    )


async def forget_minutes(session: AsyncSession, before: datetime) -> None:
    """Deletes minutes before this moment."""
    await session.execute(delete(ServerMinute).where(ServerMinute.minute < int(before.timestamp()) // 60))


async def forget_rejected(session: AsyncSession, most_bytes: int) -> None:
    """Deletes the oldest rejected batches while all together are too large."""
    size = func.length(RejectedBatch.payload)
    surplus = int(await session.scalar(select(func.coalesce(func.sum(size), 0))) or 0) - most_bytes
    if surplus <= 0:
        return
    newest_doomed = 0
    for row_id, bytes_count in await session.execute(select(RejectedBatch.id, size).order_by(RejectedBatch.id)):
        if surplus <= 0:
            break
        newest_doomed = row_id
        surplus -= bytes_count
    await session.execute(delete(RejectedBatch).where(RejectedBatch.id <= newest_doomed))


def _named(keys: Sequence[tuple[int, str, int]]) -> Any:
    return tuple_(LedgerBody.server_id, LedgerBody.epoch, LedgerBody.seq).in_(list(keys))


def _with_server_last(sums: Mapping[Any, Sequence[int]]) -> list[list[int]]:
    """Columns: the key without its last part, up, down, and the last part (the server)."""
    keys = sorted(sums)
    *parts, servers = _columns(keys, len(keys[0]) if keys else 1)
    return [*parts, [sums[key][0] for key in keys], [sums[key][1] for key in keys], servers]


def _columns(rows: Sequence[Sequence[Any]], count: int) -> list[list[Any]]:
    return [[row[place] for row in rows] for place in range(count)]
