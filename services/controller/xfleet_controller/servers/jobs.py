"""Jobs around servers: presence to the database, old states away, transitions told."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from xfleet_controller.context import Context
from xfleet_controller.outbox import note_event
from xfleet_controller.servers import difference, removal, service, store
from xfleet_controller.servers.addresses import is_address
from xfleet_controller.servers.beats import kept_beat
from xfleet_controller.servers.fields import MAINTENANCE
from xfleet_controller.servers.presence import OFFLINE, ONLINE, PENDING, Seen
from xfleet_controller.servers.replacing import WAITING, follow, read_replaced
from xfleet_controller.servers.store import Known
from xfleet_controller.sql import batches
from xfleet_controller.texts import cleaned
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
FLUSH_S = 3.0
MAX_REVISION = 2**63 - 1
MAX_ADDRESS = 64
MAX_MOMENT_MS = 253_402_300_000_000
"""The last second of the year 9999."""
TOLD = {ONLINE: "server_online", OFFLINE: "server_offline"}
"""Events of the transitions that are told."""


async def flush_presence(context: Context) -> None:
    """Writes what beats told since the last time, and every change of status with its event."""
    known = await service.refresh_known(context)
    unsaved = {known[sid].id: seen for sid, seen in context.presence.take_unsaved().items() if sid in known}
    if unsaved:
        await _write_beats(context, unsaved)
    for sid, each in known.items():
        status = context.presence.status(sid, each.status)
        if status != each.status:
            await _move(context, sid, each, status)
        if each.replaced is not None and each.id in unsaved:
            await _follow(context, sid, each, unsaved[each.id])
    await removal.finish_retired(context, known)


async def _write_beats(context: Context, unsaved: Mapping[int, Seen]) -> None:
    """Locks as `state.changing` does: revision rows in order, then servers; deleted ones are passed over."""
    told = {server_id: seen.told_error for server_id, seen in unsaved.items()}
    try:
        async with context.database.write() as session:
            there: list[int] = []
            for part in batches(sorted(unsaved)):
                locked = await store.lock_points(session, part)
                await store.update_points(session, [_point_values(each, unsaved[each]) for each in locked])
                there += locked
            for part in batches(there):
                await store.update_presence(session, [_server_values(each, unsaved[each]) for each in part])
    except BaseException:
        for server_id, seen in unsaved.items():
            seen.unsaved, seen.told_error = True, told[server_id]
        raise


async def _move(context: Context, sid: str, known: Known, status: str) -> None:
    """Writes a change of status; it is told, but not about servers in maintenance or on their way out."""
    is_told = status in TOLD and known.mode != MAINTENANCE and known.retiring_at is None
    async with context.database.write() as session:
        if await store.move_status(session, known.id, status) and is_told:
            details = {"first": True} if known.status == PENDING else {}
            note_event(session, TOLD[status], context.clock.now(), server=sid, details=details)
    _log.info("server status changed", sid=sid, before=known.status, after=status)
    context.presence.touch(sid)


async def _follow(context: Context, sid: str, known: Known, seen: Seen) -> None:
    replaced = read_replaced(known.replaced)
    if replaced is None or replaced.state != WAITING or seen.beat.instance == replaced.old_instance:
        return
    async with context.database.write() as session:
        if await follow(session, known.id, seen.beat, context.clock.now()):
            _log.info("another machine took a server's place", sid=sid)
    context.presence.touch(sid)


async def forget_the_old(context: Context) -> None:
    """Drops snapshot chunks and points nobody needs any more."""
    async with context.database.write() as session:
        await difference.forget_the_old(session, context.clock.now())


def _server_values(server_id: int, seen: Seen) -> dict[str, Any]:
    """Cleaned: one agent's nonsense must not keep the rows of all others from being written."""
    beat, host = seen.beat, seen.beat.host
    changed: dict[str, Any] = {}
    if beat.xray.last_error != seen.told_error:
        seen.told_error = beat.xray.last_error
        changed["last_error"] = cleaned(beat.xray.last_error, 1000)
    return changed | {
        "id": server_id,
        "last_seen_at": datetime.fromtimestamp(seen.received_at_ms / 1000, UTC),
        "instance": cleaned(beat.instance, 64),
        "agent_version": cleaned(beat.agent_version, 50),
        "xray_version": cleaned(beat.xray.version, 50),
        "os_info": {name: cleaned(getattr(host, name), 200) for name in ("os", "kernel", "arch", "hostname")},
        "reported_address": host.default_address if _is_short_address(host.default_address) else "",
        "clock_offset_ms": beat.clock_offset_ms,
        "credentials_expire_at": _moment(beat.credentials_expire_at_ms),
        "last_beat": kept_beat(beat),
    }


def _moment(at_ms: int) -> datetime | None:
    """The moment, where it is one that every database holds; None for nothing told."""
    return datetime.fromtimestamp(at_ms / 1000, UTC) if 0 < at_ms < MAX_MOMENT_MS else None


def _is_short_address(text: str) -> bool:
    return len(text) <= MAX_ADDRESS and is_address(text)


def _point_values(server_id: int, seen: Seen) -> dict[str, Any]:
    beat = seen.beat
    return {
        "server_id": server_id,
        "wanted_revision": min(max(beat.wanted_revision, 0), MAX_REVISION),
        "wanted_digest": cleaned(beat.wanted_digest, 64),
        "applied_revision": min(max(beat.applied_revision, 0), MAX_REVISION),
    }
