"""What was deleted is `retiring` until every server that ran it has acknowledged."""

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.clients.models import Tombstone
from xfleet_controller.tasks.models import ServerTask
from xfleet_controller.tasks.store import OPEN

REVERT = "revert_config"
"""The operation of going back to an earlier configuration: it deletes inbounds too, where it was asked to."""

RETIRES = frozenset({"delete_client", "delete_inbound", "delete_server", REVERT})
"""Operations whose end may settle a tombstone."""


async def settle_retired(session: AsyncSession) -> None:
    """Marks tombstones done whose servers are all past the deletion."""
    await session.flush()
    retiring = (await session.scalars(select(Tombstone).where(Tombstone.retiring.is_(True)))).all()
    for tombstone in retiring:
        waiting = (
            select(ServerTask.id)
            .where(
                ServerTask.operation.in_((f"delete_{tombstone.kind}", REVERT)),
                ServerTask.status.in_(OPEN),
                ServerTask.created_at == tombstone.deleted_at,
            )
            .exists()
        )
        if not await session.scalar(select(waiting)):
            await session.execute(
                update(Tombstone)
                .where(Tombstone.kind == tombstone.kind, Tombstone.key == tombstone.key)
                .values(retiring=False)
            )
