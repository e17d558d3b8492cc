"""What became of an order: written to the revision row and to the tasks that waited for it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.apply import BASE_MISMATCH, SNAPSHOT_GONE, ApplyReport, Degraded
from xfleet_contracts.desired_state import StatePoint
from xfleet_contracts.errors import RemoteRefusal
from xfleet_controller.context import Context
from xfleet_controller.outbox import note_event
from xfleet_controller.servers.fields import MAINTENANCE
from xfleet_controller.servers.models import Server, ServerRevision
from xfleet_controller.servers.retiring import RETIRES, settle_retired
from xfleet_controller.tasks import store as tasks
from xfleet_controller.tasks.models import ServerTask

DIGEST_MISMATCH = "digest_mismatch"
DEFINITE = frozenset({"malformed", "too_large", "unknown_verb"})
"""Refusals that repeating cannot cure; all others say something about the moment."""
XRAY_STOPPED = "xray_stopped"
"""The agent stored the state; an operator keeps its Xray stopped."""
ELSEWHERE = frozenset({BASE_MISMATCH, SNAPSHOT_GONE, DIGEST_MISMATCH})
"""Refusals whose details name the point where the agent is."""


def point_in(refusal: RemoteRefusal) -> StatePoint | None:
    """The agent's own point as a refusal's details name it: `{"point": {...}}` or its two fields at the top."""
    try:
        return msgspec.convert(refusal.details.get("point", refusal.details), StatePoint)
    except msgspec.ValidationError:
        return None


async def note_report(
    session: AsyncSession, server_id: int, sid: str, report: ApplyReport, owner: str, now: datetime
) -> bool:
    """Writes down where the server is now, and what it could not apply; whether that is where it should be."""
    row = await session.get(ServerRevision, server_id, with_for_update=True)
    if row is None:
        return True
    row.wanted_revision, row.wanted_digest = report.point.revision, report.point.digest
    row.applied_revision = report.applied_revision
    before = {(each["key"]["kind"], each["key"]["id"]) for each in row.degraded}
    fresh = [each for each in report.degraded if _name(each) not in before]
    row.degraded = [msgspec.to_builtins(each) for each in report.degraded]
    if row.lease_owner == owner:
        row.lease_owner, row.lease_until_at = "", None
    finished = await tasks.list_open_until(session, server_id, report.point.revision)
    for task in finished:
        _finish(task, report.degraded, now, report)
    server = await session.get(Server, server_id) if fresh else None
    if server is not None and server.mode != MAINTENANCE:
        details = _error_of(fresh[0])
        note_event(session, "apply_degraded", now, server=sid, subject=fresh[0].key.id, details=details)
    if any(task.operation in RETIRES for task in finished):
        await settle_retired(session)
    return (row.desired_revision, row.desired_digest) == (report.point.revision, report.point.digest)


async def note_kept(context: Context, server_id: int, target: StatePoint, owner: str) -> None:
    """The server has the state and will run it when somebody starts its Xray again."""
    now = context.clock.now()
    async with context.database.write() as session:
        row = await session.get(ServerRevision, server_id, with_for_update=True)
        if row is None:
            return
        row.wanted_revision, row.wanted_digest = target.revision, target.digest
        if row.lease_owner == owner:
            row.lease_owner, row.lease_until_at = "", None
        degraded = msgspec.convert(row.degraded, list[Degraded])
        for task in await tasks.list_open_until(session, row.server_id, target.revision):
            _finish(task, degraded, now, None)
        await settle_retired(session)
    context.bell.ring()


async def fail_refused(session: AsyncSession, row: ServerRevision, now: datetime) -> None:
    """Another change led back to what the agent will not take: its tasks do not wait for ever."""
    for task in await tasks.list_open_until(session, row.server_id, row.desired_revision):
        task.status, task.completed_at = "failed", now
        task.error = {"code": "refused_before", "message": "The agent refused exactly this state before."}
    await settle_retired(session)


async def note_refusal(
    context: Context, server_id: int, target: StatePoint, refusal: RemoteRefusal, owner: str
) -> None:
    """The agent will not take this state at all: its tasks fail and the digest is not sent again."""
    now = context.clock.now()
    async with context.database.write() as session:
        row = await session.get(ServerRevision, server_id, with_for_update=True)
        if row is None:
            return
        row.refused_digest = target.digest
        if row.lease_owner == owner:
            row.lease_owner, row.lease_until_at = "", None
        body = refusal.body()
        for task in await tasks.list_open_until(session, server_id, target.revision):
            task.status, task.completed_at = "failed", now
            task.error = {"code": body.code, "message": body.message, "details": body.details}
        await settle_retired(session)
    context.bell.ring()


def _finish(task: ServerTask, degraded: Sequence[Degraded], now: datetime, report: ApplyReport | None) -> None:
    touched = {tuple(each) for each in task.request.get("entities", [])}
    concerned = [each for each in degraded if _concerns(each, touched)]
    task.status = "degraded" if concerned else "completed"
    task.error = _error_of(concerned[0]) | {"degraded": [_error_of(each) for each in concerned]} if concerned else None
    task.completed_at = now
    task.started_at = task.started_at or now
    task.lease_owner = ""
    task.took_ms = int((now - task.created_at).total_seconds() * 1000)
    if report is not None:
        task.response = {"steps_count": report.steps_count, "restarted": report.restarted, "took_ms": report.took_ms}


def _concerns(degraded: Degraded, touched: set[tuple[Any, ...]]) -> bool:
    if _name(degraded) in touched:
        return True
    if degraded.key.kind != "inbound":
        return False
    return any(kind == "client" and str(name).endswith(f".{degraded.key.id}") for kind, name in touched)


def _name(degraded: Degraded) -> tuple[str, str]:
    return (degraded.key.kind, degraded.key.id)


def _error_of(degraded: Degraded) -> dict[str, Any]:
    return {
        "code": degraded.code,
        "message": degraded.reason,
        "path": degraded.path,
        "kind": degraded.key.kind,
        "kept": degraded.kept,
    }
