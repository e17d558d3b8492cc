"""The rules of keeping house: who may change how long things are kept, and forgetting what is older."""

from datetime import timedelta

from xfleet_controller.audit.store import note
from xfleet_controller.auth.rights import Actor, authorize
from xfleet_controller.context import Context
from xfleet_controller.errors import FieldError, Invalid
from xfleet_controller.rollouts import store as rollouts
from xfleet_controller.tasks import store as tasks
from xfleet_controller.upkeep import store
from xfleet_controller.upkeep.retention import FOR_EVER, LIMITS, MAY_BE_FOR_EVER, Retention


async def get_retention(context: Context, actor: Actor) -> Retention:
    """How long things are kept."""
    authorize(actor, "settings.read")
    async with context.database.read() as session:
        return await store.find_retention(session)


async def change_retention(context: Context, actor: Actor, retention: Retention) -> Retention:
    """Changes it; the next round of housekeeping forgets accordingly. Raises `Invalid`."""
    authorize(actor, "settings.write")
    if errors := retention_errors(retention):
        raise Invalid(errors)
    now = context.clock.now()
    async with context.database.write() as session:
        before = await store.find_retention(session)
        await store.set_retention(session, retention, now)
        note(session, actor, "change_retention", "settings", store.RETENTION, now, before=before, after=retention)
    return retention


def retention_errors(retention: Retention) -> list[FieldError]:
    """What is out of range."""
    errors: list[FieldError] = []
    for field, (least, most) in LIMITS.items():
        value, may_be_for_ever = getattr(retention, field), field in MAY_BE_FOR_EVER
        if not least <= value <= most and not (may_be_for_ever and value == FOR_EVER):
            reason = f"From {least} to {most}{', or 0 for ever' if may_be_for_ever else ''}."
            errors.append(FieldError(field, reason, "out_of_range"))
    return errors


async def forget_the_old(context: Context) -> Retention:
    """Drops what is older than it is kept; returns what holds."""
    now, database = context.clock.now(), context.database
    async with database.read() as session:
        kept = await store.find_retention(session)
    async with database.write() as session:
        await tasks.forget_the_old(session, now - timedelta(days=kept.tasks_days))
        await rollouts.forget_the_old(session, now - timedelta(days=kept.tasks_days))
    await store.forget_events(database, now - timedelta(days=kept.events_days))
    if kept.audit_days != FOR_EVER:
        await store.forget_audit(database, now - timedelta(days=kept.audit_days))
    if kept.traffic_hours_days != FOR_EVER:
        await store.forget_hours(database, now - timedelta(days=kept.traffic_hours_days))
    return kept
