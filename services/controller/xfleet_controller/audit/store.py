"""SQL of the audit log."""

from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.codec import redact
from xfleet_controller.audit.models import AuditRow
from xfleet_controller.auth.rights import Actor
from xfleet_controller.trace import current_trace_id


def note(
    session: AsyncSession,
    actor: Actor,
    action: str,
    kind: str,
    object_id: str,
    now: datetime,
    *,
    name: str = "",
    before: Any = None,
    after: Any = None,
    address: str = "",
) -> None:
    """Writes down who did what to what; before and after are redacted here."""
    session.add(
        AuditRow(
            at=now,
            actor=actor.label[:100],
            address=(address or actor.address)[:64],
            action=action,
            object_kind=kind,
            object_id=object_id[:64],
            object_name=name[:200],
            before=redact(before),
            after=redact(after),
            trace_id=current_trace_id(),
        )
    )
