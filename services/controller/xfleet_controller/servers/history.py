"""What a server's configuration was, how versions of it differ, and the way back to one.

Going back is a new revision of configuration: it never brings back a client or a secret. Inbounds that still exist get
their old settings and keep their present keys; those deleted since come back as new inbounds without clients; those
added since stay, unless it is asked for that they go.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.desired_state import InboundBody
from xfleet_controller.audit.store import note
from xfleet_controller.auth.rights import Actor, authorize
from xfleet_controller.clients.models import Tombstone
from xfleet_controller.context import Context
from xfleet_controller.errors import EditedMeanwhile, FieldError, Invalid, NotFound
from xfleet_controller.inbounds import store as inbounds
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.inbounds.service import holder_of, move_flows, write_body
from xfleet_controller.servers import state, store
from xfleet_controller.servers.compile import Scope, inbound_body
from xfleet_controller.servers.models import ConfigVersion, Server
from xfleet_controller.servers.retiring import REVERT
from xfleet_controller.servers.reverting import Restored, restored_body
from xfleet_controller.servers.service import check_staying
from xfleet_controller.servers.versions import ConfigForm, InboundForm, find_newest, opened, present_form
from xfleet_controller.servers.wording import ConfigChange, list_changes
from xfleet_xraykit.generate import default_flow
from xfleet_xraykit.lint import find_port_clash, lint_inbound


class VersionLine(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a server's configuration."""

    id: int
    revision: int
    operation: str
    actor: str
    created_at: datetime
    changes: tuple[ConfigChange, ...]
    """From the version before it."""
    is_present: bool
    """Whether it is how things are now."""


class AddedSince(msgspec.Struct, frozen=True, kw_only=True):
    """An inbound that the old configuration did not have."""

    id: int
    name: str
    clients_count: int


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """An inbound of the old configuration that cannot be had again."""

    name: str
    reason: str


class RevertPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What going back would do."""

    version: int
    revision: int
    created_at: datetime
    seen: int
    """Hand it back when going: if the configuration changed since, nothing is done."""
    changes: tuple[ConfigChange, ...]
    added: tuple[AddedSince, ...] = ()
    """Removed only when asked for."""
    left_out: tuple[LeftOut, ...] = ()


class RevertOrder(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Going back to a version."""

    seen: int | None = None
    """From the preview; without it whatever is there now is changed."""
    remove_added: bool = False
    """Inbounds added since go too, off every client on them."""


class Reverted(NamedTuple):
    """What going back did."""

    changes: Sequence[ConfigChange]
    left_out: Sequence[LeftOut]
    task_ids: list[int]


class _Plan(NamedTuple):
    """Going back, thought through on what is there now."""

    preview: RevertPreview
    changed: list[tuple[Inbound, InboundForm, InboundBody]]
    reborn: list[tuple[InboundForm, InboundBody]]
    added: list[Inbound]
    form: ConfigForm


async def list_versions(
    context: Context, actor: Actor, server_id: int, *, page: int = 1, page_size: int = 50
) -> tuple[Sequence[VersionLine], int]:
    """Versions, newest first, each with what it changed; and how many there are. Raises `NotFound`."""
    authorize(actor, "servers.read")
    async with context.database.read() as session:
        await _server(session, server_id)
        mine = select(ConfigVersion).where(ConfigVersion.server_id == server_id)
        total = await session.scalar(select(func.count()).select_from(mine.subquery())) or 0
        query = mine.order_by(ConfigVersion.id.desc()).offset((page - 1) * page_size).limit(page_size + 1)
        rows = (await session.scalars(query)).all()
    lines: list[VersionLine] = []
    for at, row in enumerate(rows[:page_size]):
        before = opened(rows[at + 1]) if at + 1 < len(rows) else None
        changes = () if before is None else tuple(list_changes(before, opened(row)))
        lines.append(
            VersionLine(
                id=row.id, revision=row.revision, operation=row.operation, actor=row.actor, created_at=row.created_at,
                changes=changes, is_present=page == 1 and at == 0,
            )
        )  # fmt: skip
    return lines, total


async def compare_versions(
    context: Context, actor: Actor, server_id: int, version: int, other: int | None = None
) -> Sequence[ConfigChange]:
    """What leads from a version to another one, or to how things are now. Raises `NotFound`."""
    authorize(actor, "servers.read")
    async with context.database.read() as session:
        server = await _server(session, server_id)
        old = opened(await _version(session, server_id, version))
        if other is not None:
            return list_changes(old, opened(await _version(session, server_id, other)))
        return list_changes(old, await present_form(session, context.vault, server))


async def preview_revert(context: Context, actor: Actor, server_id: int, version: int) -> RevertPreview:
    """What going back would do. Raises `NotFound`."""
    authorize(actor, "servers.read")
    async with context.database.read() as session:
        return (await _plan(session, context, server_id, version)).preview


async def revert(context: Context, actor: Actor, server_id: int, version: int, order: RevertOrder) -> Reverted:
    """Goes back to a version in one new revision.

    Raises `NotFound`, `ServerRetiring`, `EditedMeanwhile` when the configuration is not the one of the preview, or
    `Invalid` when ports would collide; then nothing is changed.
    """
    authorize(actor, "servers.write")
    authorize(actor, "inbounds.write")
    async with context.database.write() as session:
        await _server(session, server_id)
        async with state.changing(session, context, [server_id], operation=REVERT, actor=actor) as change:
            await check_staying(session, server_id)
            plan = await _plan(session, context, server_id, version)
            if order.seen not in (None, plan.preview.seen):
                raise EditedMeanwhile(plan.preview.seen)
            await _check_ports(session, context, server_id, plan, removed=order.remove_added)
            before = await present_form(session, context.vault, await _server(session, server_id))
            tombstones = await _carry_out(session, context, server_id, plan, change.now, removed=order.remove_added)
            await session.flush()
            server = await _server(session, server_id)
            changes = list_changes(before, await present_form(session, context.vault, server))
            change.scope = Scope(whole=True)
            note(
                session, actor, REVERT, "server", str(server_id), change.now, name=server.name,
                after={"version": version, "revision": plan.preview.revision, "changes": len(changes)},
            )  # fmt: skip
        for tombstone in tombstones:
            tombstone.retiring = bool(change.task_ids)
    return Reverted(changes, plan.preview.left_out, change.task_ids)


async def _plan(session: AsyncSession, context: Context, server_id: int, version: int) -> _Plan:
    server = await _server(session, server_id)
    row = await _version(session, server_id, version)
    old, newest = opened(row), await find_newest(session, server_id)
    present = {str(each.ref): each for each in await inbounds.list_of_server(session, server_id)}
    now = await present_form(session, context.vault, server)
    changed: list[tuple[Inbound, InboundForm, InboundBody]] = []
    reborn: list[tuple[InboundForm, InboundBody]] = []
    left_out: list[LeftOut] = []
    for ref, form in old.inbounds.items():
        held = present.get(ref)
        if held is not None and now.inbounds[ref] == form:
            continue
        restored = restored_body(form, int(ref), None if held is None else inbound_body(held, context.vault))
        if reason := _reason_against(restored):
            left_out.append(LeftOut(name=form.title, reason=reason))
        elif held is not None:
            changed.append((held, form, restored.body))
        else:
            reborn.append((form, restored.body))
    added = [each for ref, each in present.items() if ref not in old.inbounds]
    counts = await inbounds.count_clients(session, [each.id for each in added])
    kept = {str(each.ref): now.inbounds[str(each.ref)] for each in added}
    unmoved = {ref: now.inbounds[ref] for ref in old.inbounds.keys() & present.keys()}
    moved = {str(each.ref): form for each, form, _ in changed}
    fresh = {str(body.ref): form for form, body in reborn}
    after = msgspec.structs.replace(old, inbounds=kept | unmoved | moved | fresh)
    preview = RevertPreview(
        version=row.id,
        revision=row.revision,
        created_at=row.created_at,
        seen=newest.id if newest else 0,
        changes=tuple(list_changes(now, after)),
        added=tuple(
            AddedSince(id=each.id, name=now.inbounds[str(each.ref)].title, clients_count=counts.get(each.id, 0))
            for each in added
        ),
        left_out=tuple(left_out),
    )
    return _Plan(preview, changed, reborn, added, old)


def _reason_against(restored: Restored) -> str:
    """Why an inbound cannot be had again; empty when it can."""
    if restored.lost:
        return f"It needs {', '.join(restored.lost)}, and secrets are not kept in versions."
    return next((f"{each.path}: {each.reason}" for each in lint_inbound(restored.body)), "")


async def _check_ports(session: AsyncSession, context: Context, server_id: int, plan: _Plan, *, removed: bool) -> None:
    """All inbounds as they would be, each against all others. Raises `Invalid`."""
    gone = {each.ref for each in plan.added} if removed else set[int]()
    rows = {each.ref: each for each in await inbounds.list_of_server(session, server_id) if each.ref not in gone}
    bodies = {ref: inbound_body(each, context.vault) for ref, each in rows.items()}
    titles = {ref: each.remark or f"port {each.port}" for ref, each in rows.items()}
    for held, form, body in plan.changed:
        bodies[held.ref], titles[held.ref] = body, form.title
    for form, body in plan.reborn:
        bodies[body.ref], titles[body.ref] = body, form.title
    errors: list[FieldError] = []
    for body in [*(each for _, _, each in plan.changed), *(each for _, each in plan.reborn)]:
        others = {ref: each for ref, each in bodies.items() if ref != body.ref}
        clash = find_port_clash(body, others)
        if clash is not None:
            reason = f"{titles[body.ref]} would collide with the inbound {titles[clash]}, which stays."
            errors.append(FieldError("port", reason, "port_taken"))
        elif holder := await holder_of(session, context, server_id, body):
            errors.append(
                FieldError("port", f"Port {body.port} is used by the {holder} of this machine.", "port_taken")
            )
    if errors:
        raise Invalid(errors)


async def _carry_out(
    session: AsyncSession, context: Context, server_id: int, plan: _Plan, now: datetime, *, removed: bool
) -> list[Tombstone]:
    server = await _server(session, server_id)
    server.allow_private_destinations, server.updated_at = plan.form.allow_private_destinations, now
    tombstones: list[Tombstone] = []
    for row in plan.added if removed else ():
        tombstones.append(
            Tombstone(kind="inbound", key=str(row.ref), name=row.remark, server_id=server_id, deleted_at=now)
        )
        await session.delete(row)
    session.add_all(tombstones)
    await session.flush()
    for row, form, body in plan.changed:
        flow, was = default_flow(body), default_flow(inbound_body(row, context.vault))
        write_body(context, row, body)
        if flow != was:
            await move_flows(session, context, row, flow)
        row.remark, row.enabled, row.version, row.updated_at = form.remark, form.enabled, row.version + 1, now
    for form, body in plan.reborn:
        ref = await inbounds.unused_ref(session, Inbound, "inbound")
        row = Inbound(
            ref=ref, server_id=server_id, remark=form.remark, protocol=form.protocol, enabled=form.enabled,
            created_at=now, updated_at=now,
        )  # fmt: skip
        write_body(context, row, msgspec.structs.replace(body, ref=ref))
        session.add(row)
        await session.flush()
    return tombstones


async def _server(session: AsyncSession, server_id: int) -> Server:
    found = await store.find_server(session, server_id)
    if found is None:
        raise NotFound("There is no such server.")
    return found[0]


async def _version(session: AsyncSession, server_id: int, version: int) -> ConfigVersion:
    row = await session.get(ConfigVersion, version)
    if row is None or row.server_id != server_id:
        raise NotFound("There is no such version of this server's configuration.")
    return row
