"""Servers: what is managed, under which name and address."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.subjects import SLUG
from xfleet_controller.audit.store import note
from xfleet_controller.auth.rights import Actor, authorize
from xfleet_controller.clients.models import Tombstone
from xfleet_controller.context import Context
from xfleet_controller.errors import BusUnavailable, Conflict, FieldError, Invalid, NotFound, invalid
from xfleet_controller.fleet import service as fleet_service
from xfleet_controller.outbox import note_event
from xfleet_controller.servers import state, store
from xfleet_controller.servers.addresses import is_address
from xfleet_controller.servers.compile import Scope
from xfleet_controller.servers.models import Server, ServerRevision
from xfleet_controller.texts import NEWLINES, has_controls

MAX_NAME, MAX_REGION, MAX_TAGS, MAX_TAG, MAX_NOTES = 100, 100, 50, 50, 20_000
LOCAL = "local"


class ServerView(NamedTuple):
    """A server with its revision row and its status of this moment."""

    server: Server
    revision: ServerRevision
    status: str


class ServerEdit(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What may be changed; what is left out stays."""

    name: str | UnsetType = UNSET
    public_address: str | UnsetType = UNSET
    region: str | UnsetType = UNSET
    notes: str | UnsetType = UNSET
    tags: list[str] | UnsetType = UNSET
    allow_private_destinations: bool | UnsetType = UNSET


class ServerNew(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A server to be enrolled."""

    name: str
    slug: str = ""
    """Empty: made from the name."""
    public_address: str = ""
    region: str = ""
    notes: str = ""
    tags: list[str] = []


class Enrolling(NamedTuple):
    """A server and the line that enrolls its agent."""

    view: ServerView
    token: str


class NameTaken(Conflict):
    """Another server is called that."""

    code = "server_name_taken"


class ServerInUse(Conflict):
    """The server still has inbounds."""

    code = "server_in_use"
    message = "Delete the inbounds of this server first."


async def list_servers(
    context: Context, actor: Actor, *, search: str = "", page: int = 1, page_size: int = 1000
) -> tuple[Sequence[ServerView], int]:
    """Servers by id, with how many there are."""
    authorize(actor, "servers.read")
    async with context.database.read() as session:
        rows, total = await store.list_servers(session, search=search, offset=(page - 1) * page_size, limit=page_size)
    return [_view(context, server, revision) for server, revision in rows], total


async def get_server(context: Context, actor: Actor, server_id: int) -> ServerView:
    """One server. Raises `NotFound`."""
    authorize(actor, "servers.read")
    async with context.database.read() as session:
        found = await store.find_server(session, server_id)
    if found is None:
        raise NotFound("There is no such server.")
    return _view(context, *found)


async def edit_server(context: Context, actor: Actor, server_id: int, edit: ServerEdit) -> tuple[ServerView, list[int]]:
    """Changes a server; the ids of the tasks this caused."""
    authorize(actor, "servers.write")
    fields = {name: value for name, value in msgspec.structs.asdict(edit).items() if value is not UNSET}
    if errors := _errors_of(fields):
        raise Invalid(errors)
    async with (
        context.database.write() as session,
        state.changing(session, context, [server_id], operation="edit_server", actor=actor, scope=Scope()) as change,
    ):
        found = await store.find_server(session, server_id)
        if found is None:
            raise NotFound("There is no such server.")
        server, revision = found
        if "name" in fields and await store.is_name_taken(session, fields["name"], but=server_id):
            raise NameTaken("Another server has this name.", field="name")
        before = {name: getattr(server, name) for name in fields}
        if fields.get("allow_private_destinations", server.allow_private_destinations) != (
            server.allow_private_destinations
        ):
            change.scope = Scope(whole=True)
        for name, value in fields.items():
            setattr(server, name, value.strip() if isinstance(value, str) else value)
        server.updated_at = change.now
        note(
            session, actor, "edit_server", "server", str(server_id), change.now, name=server.name,
            before=before, after=fields,
        )  # fmt: skip
    return _view(context, server, revision), change.task_ids


async def add_server(session: AsyncSession, context: Context, actor: Actor, new: ServerNew) -> Server:
    """A server that waits for its agent, with its first desired state. Raises `Invalid` or `NameTaken`."""
    authorize(actor, "servers.write")
    fields = msgspec.structs.asdict(new)
    if errors := _errors_of(fields):
        raise Invalid(errors)
    slug = new.slug or _slug_from(new.name)
    if not SLUG.fullmatch(slug):
        raise invalid("slug", "Use lower-case letters, digits, - and _, beginning with a letter or digit; at most 63.")
    if await store.is_name_taken(session, new.name.strip()):
        raise NameTaken("Another server has this name.", field="name")
    if not await store.is_slug_free(session, slug):
        raise invalid("slug", "Another server has or had this slug.", "slug_taken")
    now = context.clock.now()
    server = Server(
        slug=slug,
        name=new.name.strip(),
        public_address=new.public_address.strip(),
        region=new.region,
        tags=new.tags,
        notes=new.notes,
        os_info={},
        created_at=now,
        updated_at=now,
    )
    session.add(server)
    await session.flush()
    await state.add_revision_row(session, server.id, now)
    async with state.changing(
        session, context, [server.id], operation="add_server", actor=actor, scope=Scope(whole=True)
    ):
        note(session, actor, "add_server", "server", str(server.id), now, name=server.name, after=fields)
    return server


async def make_enrollment(context: Context, actor: Actor, server_id: int) -> str:
    """A new enrollment token's line for a server. Raises `NotFound`."""
    authorize(actor, "servers.write")
    if context.fleet is None:
        raise BusUnavailable
    async with context.database.write() as session:
        found = await store.find_server(session, server_id)
        if found is None:
            raise NotFound("There is no such server.")
        return await fleet_service.make_token(session, context.fleet, actor, found[0])


async def create_server(context: Context, actor: Actor, new: ServerNew) -> Enrolling:
    """A new server and the line that enrolls its agent."""
    authorize(actor, "servers.write")
    if context.fleet is None:
        raise BusUnavailable
    async with context.database.write() as session:
        server = await add_server(session, context, actor, new)
        token = await fleet_service.make_token(session, context.fleet, actor, server)
        found = await store.find_server(session, server.id)
    await refresh_known(context)
    if found is None:
        raise NotFound
    return Enrolling(_view(context, *found), token)


async def delete_server(context: Context, actor: Actor, server_id: int) -> None:
    """Revokes all its keys and removes it; its slug never comes back. Raises `NotFound` or `ServerInUse`."""
    authorize(actor, "servers.write")
    async with context.database.write() as session:
        found = await store.find_server(session, server_id)
        if found is None:
            raise NotFound("There is no such server.")
        server, _ = found
        if await store.has_inbounds(session, server_id):
            raise ServerInUse
        now = context.clock.now()
        await fleet_service.revoke_identities(session, server, "server deleted", now)
        session.add(Tombstone(kind="server", key=server.slug, name=server.name, server_id=server.id, deleted_at=now))
        note(session, actor, "delete_server", "server", str(server_id), now, name=server.name)
        note_event(session, "server_deleted", now, server=server.slug, subject=server.name)
        await session.delete(server)
    await refresh_known(context)
    await fleet_service.push_revocations(context)


async def refresh_known(context: Context) -> dict[str, tuple[int, str]]:
    """Tells presence which servers there are; id and stored status by slug."""
    async with context.database.read() as session:
        known = await store.list_slugs(session)
    context.presence.set_known(set(known))
    return known


def _view(context: Context, server: Server, revision: ServerRevision) -> ServerView:
    return ServerView(server, revision, context.presence.status(server.slug, server.status))


def _slug_from(name: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:63]


def _errors_of(fields: dict[str, object]) -> list[FieldError]:
    errors: list[FieldError] = []
    name = fields.get("name")
    if isinstance(name, str) and not 0 < len(name.strip()) <= MAX_NAME:
        errors.append(FieldError("name", f"The name needs 1 to {MAX_NAME} characters."))
    region = fields.get("region")
    if isinstance(region, str) and len(region) > MAX_REGION:
        errors.append(FieldError("region", f"The region may have at most {MAX_REGION} characters.", "too_long"))
    address = fields.get("public_address")
    if isinstance(address, str) and address.strip() and not is_address(address.strip()):
        errors.append(FieldError("public_address", "Give a host name or an IP address, without port or path."))
    notes = fields.get("notes")
    if isinstance(notes, str) and len(notes) > MAX_NOTES:
        errors.append(FieldError("notes", f"The notes may have at most {MAX_NOTES} characters."))
    tags = fields.get("tags")
    if isinstance(tags, list) and (len(tags) > MAX_TAGS or any(not 0 < len(str(tag)) <= MAX_TAG for tag in tags)):
        errors.append(FieldError("tags", f"At most {MAX_TAGS} tags of 1 to {MAX_TAG} characters."))
    return [*errors, *_control_errors(fields)]


def _control_errors(fields: dict[str, object]) -> list[FieldError]:
    texts = {field: str(fields.get(field, "")) for field in ("name", "region", "notes")}
    tags = fields.get("tags")
    texts["tags"] = "".join(map(str, tags)) if isinstance(tags, list) else ""
    return [
        FieldError(field, "Control characters are not allowed here.", "control_characters")
        for field, text in texts.items()
        if has_controls(text, allowed=NEWLINES if field == "notes" else "")
    ]
