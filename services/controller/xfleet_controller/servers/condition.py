"""How a server is: why nobody hears it, and what is wrong with one that is heard. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from xfleet_contracts.heartbeat import Heartbeat
from xfleet_controller.servers.fields import MAINTENANCE
from xfleet_controller.servers.models import Server, ServerRevision
from xfleet_controller.servers.presence import OFFLINE, ONLINE, PENDING, STALE

EXPIRING_WITHIN = timedelta(days=14)
"""Credentials are renewed monthly: less than this left means that renewing does not work."""
CLOCK_OFF_MS = 60_000
DISK_FULL_PERCENT = 95
SPOOL_WAITING_COUNT = 32

NEVER_JOINED, REVOKED, EXPIRED = "never_joined", "revoked", "credentials_expired"
BROKER_AWAY, SILENT = "broker_unreachable", "no_sign_of_life"
REASONS = {
    NEVER_JOINED: "No agent has joined as this server yet.",
    REVOKED: "Its identity was revoked. Make a new join line to bring it back.",
    EXPIRED: "Its credentials expired before they were renewed.",
    BROKER_AWAY: "The controller itself cannot reach the broker, so nothing is known about any server.",
    SILENT: "Nothing was heard from its agent. It keeps serving its clients and counts by itself.",
}
"""Why a server is not online, in a sentence."""


class Identities(NamedTuple):
    """What a server was given to sign in with."""

    live_count: int = 0
    revoked_count: int = 0
    expired_count: int = 0


class Problem(NamedTuple):
    """Something about a server that a person should look at."""

    code: str
    tone: str
    """danger or warning"""
    text: str


def reason_of(status: str, identities: Identities, *, listening: bool) -> str:
    """Why a server is not online, as one of `REASONS`; empty while it is."""
    if status == ONLINE:
        return ""
    if not identities.live_count:
        if identities.revoked_count:
            return REVOKED
        if identities.expired_count:
            return EXPIRED
    elif not listening:
        return BROKER_AWAY
    return NEVER_JOINED if status == PENDING else SILENT


def standing_of(server: Server) -> str:
    """What people decided about a server: active, drain, maintenance, disabled or retiring."""
    if server.retiring_at is not None:
        return "retiring"
    return server.mode if server.enabled else "disabled"


def problems_of(
    server: Server, revision: ServerRevision, status: str, reason: str, beat: Heartbeat | None, now: datetime
) -> tuple[Problem, ...]:
    """What is wrong with a server, worst first; nothing while it is in maintenance or on its way out."""
    if server.mode == MAINTENANCE or server.retiring_at is not None:
        return ()
    found: list[Problem] = []
    if status == OFFLINE:
        found.append(Problem("offline", "danger", REASONS.get(reason, "")))
    elif status == STALE:
        found.append(Problem("stale", "warning", REASONS.get(reason, "")))
    if status == ONLINE and beat is not None:
        found += _problems_of_beat(beat)
    if revision.degraded:
        count = len(revision.degraded)
        text = "1 entity could not be applied." if count == 1 else f"{count} entities could not be applied."
        found.append(Problem("degraded", "warning", text))
    found += _expiry_problems(server.credentials_expire_at, now)
    return tuple(sorted(found, key=lambda each: each.tone != "danger"))


def _problems_of_beat(beat: Heartbeat) -> Sequence[Problem]:
    found: list[Problem] = []
    if beat.xray.status == "crashed":
        found.append(Problem("xray_crashed", "danger", "Xray has crashed and is not running."))
    elif beat.xray.status == "stopped":
        found.append(Problem("xray_stopped", "danger", "Xray is stopped."))
    if abs(beat.clock_offset_ms) >= CLOCK_OFF_MS:
        found.append(Problem("clock_off", "warning", f"Its clock is {abs(beat.clock_offset_ms) // 1000} s off."))
    host = beat.host
    if host.disk_total_bytes and 100 * host.disk_used_bytes >= DISK_FULL_PERCENT * host.disk_total_bytes:
        found.append(Problem("disk_full", "warning", "Its disk is almost full."))
    if beat.spool.sealed_batches_count >= SPOOL_WAITING_COUNT:
        text = f"{beat.spool.sealed_batches_count} batches of traffic wait for the ledger."
        found.append(Problem("spool_waiting", "warning", text))
    return found


def _expiry_problems(expires_at: datetime | None, now: datetime) -> Sequence[Problem]:
    if expires_at is None or expires_at - now > EXPIRING_WITHIN:
        return ()
    if expires_at <= now:
        return (Problem("credentials_expired", "danger", "Its credentials have expired."),)
    days = (expires_at - now).days
    return (Problem("credentials_expiring", "warning", f"Its credentials expire in {days} d and were not renewed."),)
