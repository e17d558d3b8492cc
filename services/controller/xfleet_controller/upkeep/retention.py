"""How long things are kept."""

import msgspec

FOR_EVER = 0
LIMITS: dict[str, tuple[int, int]] = {
    "tasks_days": (1, 3650),
    "audit_days": (30, 3650),
    "events_days": (1, 365),
    "traffic_hours_days": (32, 3650),
    "traffic_minutes_hours": (2, 24 * 14),
}
"""From and to; 0 means for ever where it says so below."""
MAY_BE_FOR_EVER = frozenset({"audit_days", "traffic_hours_days"})


class Retention(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the database keeps what only grows. Totals, days of traffic and the ledger's keys are never dropped."""

    tasks_days: int = 90
    """Orders to servers that came to their end."""
    audit_days: int = 400
    """Who did what; 0: for ever."""
    events_days: int = 7
    """Events that could not be published because no broker was there."""
    traffic_hours_days: int = 400
    """Traffic per client and hour; 0: for ever."""
    traffic_minutes_hours: int = 24
    """Traffic per server and minute, for the live chart."""
