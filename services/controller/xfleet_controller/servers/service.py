"""Servers: what is managed, under which name and address, and in which mode."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.errors import Refusal
from xfleet_controller.audit.store import note
from xfleet_controller.auth.rights import Actor, authorize
from xfleet_controller.context import Context
from xfleet_controller.errors import BusUnavailable, Conflict, FieldError, Invalid, NotFound, both, check_version
from xfleet_controller.fleet import service as fleet_service
from xfleet_controller.fleet import store as fleet_store
from xfleet_controller.outbox import note_event
from xfleet_controller.servers import state, store
from xfleet_controller.servers.addresses import is_private
from xfleet_controller.servers.compile import Scope
from xfleet_controller.servers.condition import Identities, reason_of, standing_of
from xfleet_controller.servers.fields import ServerEdit, ServerNew, cleaned_fields, errors_of, slug_from, slug_problem
from xfleet_controller.servers.models import Server, ServerRevision
from xfleet_controller.servers.presence import ONLINE
from xfleet_controller.servers.store import Known
from xfleet_controller.sql import is_sqlite

LOCAL = "local"
WHOLE_FIELDS = frozenset({"enabled", "allow_private_destinations"})
"""Fields that change everything a server should run."""
EVENTS: Mapping[tuple[str, Any], str] = {("enabled", True): "server_enabled", ("enabled", False): "server_disabled"}


class ServerView(NamedTuple):
    """A server with its revision row and its status of this moment."""

    server: Server
    revision: ServerRevision
    status: str
    """pending, online, stale or offline."""
    reason: str = ""
    """Why it is not online, as a word of `condition.REASONS`."""


class Enrolling(NamedTuple):
    """A server and the line that enrolls its agent."""

    view: ServerView
    token: str


class NameTaken(Conflict):
    """Another server is called that."""

    code = "server_name_taken"


class AddressTaken(Conflict):
    """Another server has this public address."""

    code = "server_address_taken"
    message = "Another server has this public address."


class ServerRetiring(Refusal):
    """The server is on its way out."""

    code = "server_retiring"
    status = 409
    message = "This server is being deleted; nothing about it can be changed any more."


async def list_servers(
    context: Context,
    actor: Actor,
    *,
    search: str = "",
    tag: str = "",
    region: str = "",
    status: str = "",
    page: int = 1,
    page_size: int = 1000,
) -> tuple[Sequence[ServerView], int]:
    """Servers by id, with how many match; `status` also takes what people decided: drain, disabled, retiring …"""
    authorize(actor, "servers.read")
    async with context.database.read() as session:
        rows = await store.list_servers(session, search=search.strip(), region=region)
        rows = [row for row in rows if not tag or tag in row[0].tags]
        views = await views_of(session, context, rows)
    if status:
        views = [view for view in views if status in (view.status, standing_of(view.server))]
    return views[(page - 1) * page_size : page * page_size], len(views)


async def list_choices(context: Context, actor: Actor) -> tuple[list[str], list[str]]:
    """Every region and every tag in use."""
    authorize(actor, "servers.read")
    async with context.database.read() as session:
        return await store.list_regions_and_tags(session)


async def get_server(context: Context, actor: Actor, server_id: int) -> ServerView:
    """One server. Raises `NotFound`."""
    authorize(actor, "servers.read")
    async with context.database.read() as session:
        return (await views_of(session, context, [await _row_of(session, server_id)]))[0]


async def edit_server(context: Context, actor: Actor, server_id: int, edit: ServerEdit) -> tuple[ServerView, list[int]]:
    """Changes a server; the ids of the tasks this caused.

    Raises `Invalid`, `NameTaken`, `AddressTaken`, `EditedMeanwhile`, `ServerRetiring` or `NotFound`.
    """
    authorize(actor, "servers.write")
    fields = cleaned_fields({name: value for name, value in msgspec.structs.asdict(edit).items() if value is not UNSET})
    version = fields.pop("version", None)
    if errors := errors_of(fields):
        raise Invalid(errors)
    async with context.database.write() as session:
        async with state.changing(session, context, [server_id], operation="edit_server", actor=actor) as change:
            server, revision = await _row_of(session, server_id, locked=True)
            if server.retiring_at is not None:
                raise ServerRetiring
            before = {name: getattr(server, name) for name in fields}
            check_version(version, server.version, both(before, fields))
            after = {name: value for name, value in fields.items() if value != before[name]}
            await _check_unique(session, after, but=server_id)
            if after.keys() & WHOLE_FIELDS:
                change.scope = Scope(whole=True)
            if after:
                for name, value in after.items():
                    setattr(server, name, value)
                server.version += 1
                server.updated_at = change.now
                _note_edit(session, actor, server, before, after)
        view = (await views_of(session, context, [(server, revision)]))[0]
    return view, change.task_ids


def _note_edit(
    session: AsyncSession, actor: Actor, server: Server, before: Mapping[str, Any], after: Mapping[str, Any]
) -> None:
    now = server.updated_at
    told = {name: before[name] for name in after}
    note(session, actor, "edit_server", "server", str(server.id), now, name=server.name, before=told, after=dict(after))
    for change in after.items():
        kind = "server_mode_changed" if change[0] == "mode" else EVENTS.get(change) if change[0] == "enabled" else None
        if kind:
            details = {"mode": server.mode, "enabled": server.enabled, "by": actor.label}
            note_event(session, kind, now, server=server.slug, subject=server.name, details=details)


async def add_server(session: AsyncSession, context: Context, actor: Actor, new: ServerNew) -> Server:
    """A server that waits for its agent, with its first desired state.

    Raises `Invalid`, `NameTaken` or `AddressTaken`.
    """
    authorize(actor, "servers.write")
    fields = cleaned_fields(msgspec.structs.asdict(new))
    fields["slug"] = fields["slug"] or slug_from(fields["name"])
    if errors := [*errors_of(fields), *_slug_errors(fields)]:
        raise Invalid(errors)
    await _check_unique(session, fields)
    if not await store.is_slug_free(session, fields["slug"]):
        raise Invalid([FieldError("slug", "Another server has or had this slug.", "slug_taken")])
    now = context.clock.now()
    if is_sqlite(session):
        fields["id"] = await store.unused_id(session)
    server = Server(**fields, os_info={}, created_at=now, updated_at=now)
    session.add(server)
    await session.flush()
    await state.add_revision_row(session, server.id, now)
    async with state.changing(
        session, context, [server.id], operation="add_server", actor=actor, scope=Scope(whole=True)
    ):
        after = {name: value for name, value in fields.items() if name != "id"}
        note(session, actor, "add_server", "server", str(server.id), now, name=server.name, after=after)
    return server


async def make_enrollment(context: Context, actor: Actor, server_id: int) -> str:
    """A new enrollment token's line for a server. Raises `NotFound` or `ServerRetiring`."""
    authorize(actor, "servers.write")
    if context.fleet is None:
        raise BusUnavailable
    async with context.database.write() as session:
        server, _ = await _row_of(session, server_id)
        if server.retiring_at is not None:
            raise ServerRetiring
        return await fleet_service.make_token(session, context.fleet, actor, server)


async def create_server(context: Context, actor: Actor, new: ServerNew) -> Enrolling:
    """A new server and the line that enrolls its agent."""
    authorize(actor, "servers.write")
    if context.fleet is None:
        raise BusUnavailable
    async with context.database.write() as session:
        server = await add_server(session, context, actor, new)
        token = await fleet_service.make_token(session, context.fleet, actor, server)
        view = (await views_of(session, context, [await _row_of(session, server.id)]))[0]
    await refresh_known(context)
    return Enrolling(view, token)


async def register_server(context: Context, actor: Actor, new: ServerNew) -> ServerView:
    """A new server, for which a join line is made later."""
    authorize(actor, "servers.write")
    async with context.database.write() as session:
        server = await add_server(session, context, actor, new)
        view = (await views_of(session, context, [await _row_of(session, server.id)]))[0]
    await refresh_known(context)
    return view


async def check_joinable(session: AsyncSession, server: Server, public_address: str) -> None:
    """Returns when a machine may join as this server, under this address.

    Raises `ServerRetiring`, `Invalid` or `AddressTaken`.
    """
    if server.retiring_at is not None:
        raise ServerRetiring
    fields = {"public_address": public_address} if public_address else {}
    if errors := errors_of(fields):
        raise Invalid(errors)
    await _check_unique(session, fields, but=server.id)


async def check_staying(session: AsyncSession, server_id: int) -> None:
    """Returns when nobody is deleting the server; inside `changing` it stays so. Raises `ServerRetiring`."""
    if await store.is_retiring(session, server_id):
        raise ServerRetiring


async def refresh_known(context: Context) -> dict[str, Known]:
    """Tells presence which servers there are; what the loops need to know of them, by slug."""
    async with context.database.read() as session:
        known = await store.list_slugs(session)
    context.presence.set_known(set(known))
    return known


async def views_of(
    session: AsyncSession, context: Context, rows: Collection[tuple[Server, ServerRevision]]
) -> list[ServerView]:
    """The servers with their status of this moment and, where one is not online, the reason."""
    presence, now = context.presence, context.clock.now()
    statuses = {server.id: presence.status(server.slug, server.status) for server, _ in rows}
    away = [server_id for server_id, status in statuses.items() if status != ONLINE]
    counts = await fleet_store.count_identities(session, away, now) if away else {}
    return [
        ServerView(
            server,
            revision,
            statuses[server.id],
            reason_of(statuses[server.id], Identities(*counts.get(server.id, ())), listening=presence.is_listening),
        )
        for server, revision in rows
    ]


async def _row_of(session: AsyncSession, server_id: int, *, locked: bool = False) -> tuple[Server, ServerRevision]:
    if locked:
        await session.get(Server, server_id, with_for_update=True, populate_existing=True)
    found = await store.find_server(session, server_id)
    if found is None:
        raise NotFound("There is no such server.")
    return found


async def _check_unique(session: AsyncSession, fields: Mapping[str, Any], *, but: int | None = None) -> None:
    if "name" in fields and await store.is_name_taken(session, fields["name"], but=but):
        raise NameTaken("Another server has this name.", field="name")
    address = fields.get("public_address", "")
    if address and not is_private(address) and await store.is_address_taken(session, address, but=but):
        raise AddressTaken(field="public_address")


def _slug_errors(fields: Mapping[str, Any]) -> list[FieldError]:
    problem = slug_problem(fields["slug"])
    if problem is None:
        return []
    if not slug_from(fields["name"]):
        reason = "Nothing of the name can stand in a slug: give one of lower-case letters and digits."
        return [FieldError("slug", reason, problem.code)]
    return [problem]


__all__ = ["LOCAL", "ServerEdit", "ServerNew", "ServerView"]
