"""An agent whose disk is gone: what it had counted and not handed over is a gap, and is shown as one."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.traffic.models import LedgerBody, LedgerGap

AGENT_LOST = "agent_lost"


async def note_lost_agent(session: AsyncSession, server_id: int, now: datetime) -> None:
    """Notes the time since the server's last batch as a gap, once; nothing when it never sent one."""
    newest = select(LedgerBody.epoch, LedgerBody.seq, LedgerBody.to_at).where(LedgerBody.server_id == server_id)
    row = (await session.execute(newest.order_by(LedgerBody.to_at.desc()).limit(1))).first()
    if row is None:
        return
    epoch, seq, from_at = row
    known = await session.scalar(
        select(func.count())
        .select_from(LedgerGap)
        .where(LedgerGap.server_id == server_id, LedgerGap.reason == AGENT_LOST, LedgerGap.from_at == from_at)
    )
    if not known:
        gap = LedgerGap(
            server_id=server_id, epoch=epoch, seq=seq, reason=AGENT_LOST, from_at=from_at, to_at=max(now, from_at)
        )
        session.add(gap)
