"""Clients: who is sold access, on which inbounds, until when and how much."""

import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.desired_state import ClientBody
from xfleet_controller.audit.store import note
from xfleet_controller.auth.rights import SYSTEM, Actor, authorize, may
from xfleet_controller.clients import store
from xfleet_controller.clients.models import Client, ClientInbound, Tombstone
from xfleet_controller.clients.store import Usage
from xfleet_controller.context import Context
from xfleet_controller.errors import FieldError, Invalid, NotFound, both, check_version, invalid
from xfleet_controller.inbounds import store as inbounds
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.outbox import note_event
from xfleet_controller.servers import state
from xfleet_controller.servers.compile import Credentials, Scope, credentials_record, inbound_body
from xfleet_controller.servers.state import Change
from xfleet_controller.servers.strays import forget_client
from xfleet_controller.subscriptions.links import Link, links_of
from xfleet_controller.texts import NEWLINES, has_controls
from xfleet_xraykit.generate import complete_client

MAX_NAME = 64
MAX_COMMENT = 2000
MAX_BYTES = 2**62
MAX_INBOUNDS = 10_000
MAX_ID = 2**63 - 1
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
"""Between them a moment survives every zone, database and client."""
QUOTA = "quota"
EXPIRED = "expired"
ONLINE_WITHIN_S = 30
STATES = ("active", "expiring", "depleted", "expired", "disabled")


class ClientNew(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A new client."""

    name: str
    inbound_ids: list[int] = []
    total_bytes: int | None = None
    """Quota, up and down together; 0 or null: unlimited."""
    expires_at: datetime | None = None
    enabled: bool = True
    comment: str = ""


class ClientEdit(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What may be changed; what is left out stays."""

    name: str | UnsetType = UNSET
    inbound_ids: list[int] | UnsetType = UNSET
    total_bytes: int | UnsetType | None = UNSET
    expires_at: datetime | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    comment: str | UnsetType = UNSET
    version: int | UnsetType = UNSET
    """As read; when given, a change in between refuses the edit."""


class ClientView(NamedTuple):
    """A client with what went through and what it can connect to."""

    row: Client
    state: str
    online: bool
    usage: Usage
    inbound_ids: Sequence[int]
    links: Sequence[Link]
    links_shown: bool = True
    """False for who may see clients but not connect as one."""


async def list_clients(
    context: Context,
    actor: Actor,
    *,
    search: str = "",
    state: str = "",
    inbound_id: int | None = None,
    server_id: int | None = None,
    sort: str = "",
    page: int = 1,
    page_size: int = 25,
) -> tuple[Sequence[ClientView], int]:
    """Clients, with how many match."""
    authorize(actor, "clients.read")
    async with context.database.read() as session:
        rows, total = await store.list_clients(
            session,
            now=context.clock.now(),
            search=search.strip(),
            state=state,
            inbound_id=inbound_id,
            server_id=server_id,
            sort=sort,
            offset=(page - 1) * page_size,
            limit=page_size,
        )
        return [_shown(actor, view) for view in await _views(session, context, rows)], total


async def get_client(context: Context, actor: Actor, client_id: int) -> ClientView:
    """One client. Raises `NotFound`."""
    authorize(actor, "clients.read")
    async with context.database.read() as session:
        row = await session.get(Client, client_id)
        if row is None:
            raise NotFound("There is no such client.")
        return _shown(actor, (await _views(session, context, [row]))[0])


def _shown(actor: Actor, view: ClientView) -> ClientView:
    """The client as the actor may see it: links and subscription let in whoever holds them."""
    return view if may(actor, "clients.links") else view._replace(links=(), links_shown=False)


async def find_clients(context: Context, actor: Actor, client_ids: Sequence[int]) -> Sequence[ClientView]:
    """Those of these clients that there are, for pages that show them live."""
    authorize(actor, "clients.read")
    async with context.database.read() as session:
        return await _views(session, context, await store.list_by_ids(session, client_ids))


async def create_client(context: Context, actor: Actor, new: ClientNew) -> tuple[ClientView, list[int]]:
    """A new client with fresh credentials on its inbounds; the ids of the tasks this caused."""
    authorize(actor, "clients.write")
    _check_count(new.inbound_ids)
    fields = msgspec.structs.asdict(new) | {"inbound_ids": sorted(set(new.inbound_ids))}
    async with context.database.write() as session:
        chosen = await inbounds.list_by_ids(session, new.inbound_ids)
        servers = {row.server_id for row in chosen}
        async with state.changing(session, context, servers, operation="add_client", actor=actor) as change:
            await _check(session, fields, chosen)
            ref = await inbounds.unused_ref(session, Client, "client")
            row = Client(
                ref=ref,
                name=new.name,
                name_key=new.name.lower(),
                sub_id=new_sub_id(),
                enabled=new.enabled,
                total_bytes=new.total_bytes or None,
                expires_at=new.expires_at,
                comment=new.comment,
                limits={},
                created_at=change.now,
                updated_at=change.now,
            )
            row.cut_reason = reason_to_cut(row, Usage(), change.now)
            session.add(row)
            await session.flush()
            _attach(session, context, row, chosen, change.now)
            change.scope = Scope(clients=frozenset({ref}))
            note(session, actor, "add_client", "client", str(row.id), change.now, name=row.name, after=fields)
        view = (await _views(session, context, [row]))[0]
    return view, change.task_ids


async def edit_client(context: Context, actor: Actor, client_id: int, edit: ClientEdit) -> tuple[ClientView, list[int]]:
    """Changes a client; the ids of the tasks this caused. Raises `Invalid`, `NotFound` or `EditedMeanwhile`."""
    authorize(actor, "clients.write")
    fields = {name: value for name, value in msgspec.structs.asdict(edit).items() if value is not UNSET}
    version = fields.pop("version", None)
    if "inbound_ids" in fields:
        _check_count(fields["inbound_ids"])
        fields["inbound_ids"] = sorted(set(fields["inbound_ids"]))
    async with context.database.write() as session:
        chosen = await inbounds.list_by_ids(session, fields.get("inbound_ids", ()))
        servers = await store.server_ids_of(session, client_id) | {row.server_id for row in chosen}
        async with state.changing(session, context, servers, operation="edit_client", actor=actor) as change:
            row = await session.get(Client, client_id, with_for_update=True, populate_existing=True)
            if row is None:
                raise NotFound("There is no such client.")
            before = {name: getattr(row, name) for name in fields if name != "inbound_ids"}
            if version not in (None, row.version):
                theirs = before | {"inbound_ids": sorted((await store.inbound_ids_of(session, [row.id]))[row.id])}
                check_version(version, row.version, both(theirs, fields))
            await _check(session, fields, chosen, but=client_id)
            _write(row, fields)
            if "inbound_ids" in fields:
                before["inbound_ids"] = await _move(session, context, row, chosen, change.now)
            usage = (await store.usage_of(session, [row.ref])).get(row.ref, Usage())
            row.cut_reason = reason_to_cut(row, usage, change.now)
            row.version += 1
            row.updated_at = change.now
            change.scope = Scope(clients=frozenset({row.ref}))
            note(
                session, actor, "edit_client", "client", str(row.id), change.now, name=row.name,
                before=before, after=fields,
            )  # fmt: skip
        view = (await _views(session, context, [row]))[0]
    return view, change.task_ids


async def delete_client(context: Context, actor: Actor, client_id: int) -> list[int]:
    """Removes a client everywhere; until all its servers have acknowledged it is `retiring`. Its totals stay."""
    authorize(actor, "clients.write")
    async with context.database.write() as session:
        servers = await store.server_ids_of(session, client_id)
        async with state.changing(session, context, servers, operation="delete_client", actor=actor) as change:
            row = await session.get(Client, client_id, with_for_update=True, populate_existing=True)
            if row is None:
                raise NotFound("There is no such client.")
            change.scope = Scope(clients=frozenset({row.ref}))
            tombstone = Tombstone(kind="client", key=str(row.ref), name=row.name, deleted_at=change.now)
            session.add(tombstone)
            note(session, actor, "delete_client", "client", str(row.id), change.now, name=row.name)
            await session.delete(row)
            await forget_client(session, row.ref)
        tombstone.retiring = bool(change.task_ids)
    return change.task_ids


async def cut_client(session: AsyncSession, context: Context, client_ref: int, reason: str) -> list[int]:
    """Takes a client off all servers because a limit was passed; nothing when it is cut already or gone."""
    row = await store.find_by_ref(session, client_ref)
    if row is None or row.cut_reason is not None:
        return []
    async with _limits_of(session, context, row, "cut_client") as change:
        if row.cut_reason is None:
            row.cut_reason, row.updated_at = reason, change.now
            note(session, SYSTEM, "cut_client", "client", str(row.id), change.now, name=row.name, after=[reason])
            kind = "client_depleted" if reason == QUOTA else "client_expired"
            note_event(session, kind, change.now, subject=row.name, details={"client_id": row.id})
    return change.task_ids


async def lift_cut(session: AsyncSession, context: Context, client_ref: int) -> list[int]:
    """Looks at a client's limits again, after a reset or a changed limit, and puts it back where none is passed."""
    row = await store.find_by_ref(session, client_ref)
    if row is None or row.cut_reason is None:
        return []
    async with _limits_of(session, context, row, "lift_cut") as change:
        usage = (await store.usage_of(session, [client_ref])).get(client_ref, Usage())
        reason = reason_to_cut(row, usage, change.now)
        if reason != row.cut_reason:
            row.cut_reason, row.updated_at = reason, change.now
            note(session, SYSTEM, "lift_cut", "client", str(row.id), change.now, name=row.name, after=[reason])
    return change.task_ids


@asynccontextmanager
async def _limits_of(session: AsyncSession, context: Context, row: Client, operation: str) -> AsyncIterator[Change]:
    """Locks the client's servers, then the client: the order every writer keeps."""
    servers = await store.server_ids_of(session, row.id)
    scope = Scope(clients=frozenset({row.ref}))
    async with state.changing(session, context, servers, operation=operation, actor=SYSTEM, scope=scope) as change:
        await session.refresh(row, with_for_update=True)
        yield change


async def cut_overdue(context: Context, *, at_most: int = 200) -> int:
    """Cuts clients whose time is over; how many."""
    async with context.database.read() as session:
        refs = await store.list_overdue(session, context.clock.now(), at_most)
    for ref in refs:
        async with context.database.write() as session:
            await cut_client(session, context, ref, EXPIRED)
    return len(refs)


def new_sub_id() -> str:
    """A subscription's secret name."""
    return secrets.token_hex(8)


def reason_to_cut(row: Client, usage: Usage, now: datetime) -> str | None:
    """Which limit a client has passed; None while access is allowed."""
    if row.expires_at is not None and row.expires_at <= now:
        return EXPIRED
    if row.total_bytes and usage.used_bytes >= row.total_bytes:
        return QUOTA
    return None


def state_of(row: Client, usage: Usage, now: datetime) -> str:
    """One of `STATES`."""
    if not row.enabled:
        return "disabled"
    if row.cut_reason == QUOTA:
        return "depleted"
    if row.cut_reason == EXPIRED or (row.expires_at is not None and row.expires_at <= now):
        return "expired"
    soon = row.expires_at is not None and row.expires_at <= now + store.EXPIRING_WITHIN
    nearly = bool(row.total_bytes) and usage.used_bytes >= (row.total_bytes or 0) * store.EXPIRING_SHARE
    return "expiring" if soon or nearly else "active"


def _write(row: Client, fields: dict[str, Any]) -> None:
    for name in ("name", "expires_at", "enabled", "comment"):
        if name in fields:
            setattr(row, name, fields[name])
    if "name" in fields:
        row.name_key = fields["name"].lower()
    if "total_bytes" in fields:
        row.total_bytes = fields["total_bytes"] or None


def _attach(session: AsyncSession, context: Context, row: Client, chosen: Iterable[Inbound], now: datetime) -> None:
    for inbound in chosen:
        fresh = ClientBody(client=row.ref, inbound=inbound.ref)
        made = complete_client(fresh, inbound_body(inbound, context.vault))
        credentials = Credentials(uuid=made.uuid, flow=made.flow, password=made.password)
        sealed = context.vault.seal_value(credentials_record(row.ref, inbound.ref), credentials)
        session.add(ClientInbound(client_id=row.id, inbound_id=inbound.id, credentials_sealed=sealed, created_at=now))


async def _move(
    session: AsyncSession, context: Context, row: Client, chosen: Sequence[Inbound], now: datetime
) -> list[int]:
    held = (await store.inbound_ids_of(session, [row.id]))[row.id]
    wanted = {inbound.id for inbound in chosen}
    for inbound_id in set(held) - wanted:
        link = await session.get_one(ClientInbound, (row.id, inbound_id))
        await session.delete(link)
    _attach(session, context, row, [inbound for inbound in chosen if inbound.id not in held], now)
    return held


async def _check(
    session: AsyncSession, fields: dict[str, Any], chosen: Sequence[Inbound], *, but: int | None = None
) -> None:
    errors = _errors_of(fields)
    missing = set(fields.get("inbound_ids", ())) - {row.id for row in chosen}
    if missing:
        errors.append(FieldError("inbound_ids", f"There is no inbound {min(missing)}.", "not_found"))
    if "name" in fields and not errors and await store.is_name_taken(session, fields["name"].lower(), but=but):
        errors.append(FieldError("name", "Another client has this name.", "name_taken"))
    if errors:
        raise Invalid(errors)


def _errors_of(fields: dict[str, Any]) -> list[FieldError]:
    errors: list[FieldError] = []
    if "name" in fields and (reason := name_problem(fields["name"])):
        errors.append(FieldError("name", reason, "bad_name"))
    total_bytes = fields.get("total_bytes")
    if total_bytes is not None and not 0 <= total_bytes < MAX_BYTES:
        errors.append(FieldError("total_bytes", "The quota is a number of bytes, 0 or null for none.", "out_of_range"))
    expires_at = fields.get("expires_at")
    if expires_at is not None and expires_at.tzinfo is None:
        errors.append(FieldError("expires_at", "Give the moment with its time zone, such as Z at the end.", "no_zone"))
    elif expires_at is not None and not EARLIEST <= expires_at <= LATEST:
        errors.append(FieldError("expires_at", "Give a moment between 1970 and 9999.", "out_of_range"))
    comment = fields.get("comment", "")
    if len(comment) > MAX_COMMENT:
        errors.append(FieldError("comment", f"The comment may have at most {MAX_COMMENT} characters.", "too_long"))
    if has_controls(comment, allowed=NEWLINES):
        errors.append(FieldError("comment", "Control characters are not allowed here.", "control_characters"))
    return errors


def _check_count(inbound_ids: Sequence[int]) -> None:
    if len(inbound_ids) > MAX_INBOUNDS:
        raise invalid("inbound_ids", f"A client can be on at most {MAX_INBOUNDS} inbounds.", "too_many")
    if any(not 0 < inbound_id <= MAX_ID for inbound_id in inbound_ids):
        raise invalid("inbound_ids", "There is no such inbound.", "not_found")


def name_problem(name: str) -> str:
    """What is wrong with a client's name; empty when nothing is."""
    if not 0 < len(name) <= MAX_NAME or len(name.lower()) > MAX_NAME:
        return f"The name needs 1 to {MAX_NAME} characters."
    if any(char.isspace() or char in "/\\" or not char.isprintable() for char in name):
        return "The name must not contain spaces, slashes or control characters."
    return ""


async def _views(session: AsyncSession, context: Context, rows: Sequence[Client]) -> list[ClientView]:
    ids = [row.id for row in rows]
    usages = await store.usage_of(session, [row.ref for row in rows])
    attached = await store.inbound_ids_of(session, ids)
    links = await links_of(session, context, rows)
    online, now = context.presence.online_clients(), context.clock.now()
    views: list[ClientView] = []
    for row in rows:
        usage = usages.get(row.ref, Usage())
        seen = usage.last_online_at
        is_online = row.ref in online or (seen is not None and (now - seen).total_seconds() < ONLINE_WITHIN_S)
        views.append(ClientView(row, state_of(row, usage, now), is_online, usage, attached[row.id], links[row.id]))
    return views
