"""Inbounds: what Xray listens on, completed with what only the server can know and checked before it is saved."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.codec import redact
from xfleet_contracts.desired_state import InboundBody
from xfleet_controller.audit.store import note
from xfleet_controller.auth.rights import Actor, authorize, may
from xfleet_controller.clients.models import Tombstone
from xfleet_controller.context import Context
from xfleet_controller.errors import FieldError, Invalid, NotFound, both, check_version, invalid
from xfleet_controller.inbounds import store
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.inbounds.store import Totals
from xfleet_controller.outbox import note_event
from xfleet_controller.servers import state
from xfleet_controller.servers.compile import (
    Credentials,
    InboundConfig,
    Scope,
    credentials_record,
    inbound_body,
    inbound_record,
)
from xfleet_controller.servers.service import LOCAL
from xfleet_controller.servers.store import find_server
from xfleet_controller.servers.versions import bare
from xfleet_controller.servers.wording import NOT_SET, leaves
from xfleet_controller.texts import has_controls, has_nul, is_too_deep
from xfleet_xraykit.generate import complete_inbound, default_flow
from xfleet_xraykit.lint import MAX_PORT, find_port_clash, lint_inbound
from xfleet_xraykit.protocols import security_name, transport_name

MAX_REMARK = 200
MAX_LISTEN = 200
MAX_DEPTH = 32
"""How deep Xray's objects may nest: far more than Xray knows, far less than any reader of JSON."""


class InboundNew(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A new inbound; the objects are Xray's own JSON."""

    server_id: int
    port: int
    protocol: str
    remark: str = ""
    listen: str = ""
    settings: dict[str, Any] = {}
    stream_settings: dict[str, Any] = {}
    sniffing: dict[str, Any] = {}
    enabled: bool = True


class InboundEdit(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What may be changed; what is left out stays, objects are replaced whole."""

    remark: str | UnsetType = UNSET
    listen: str | UnsetType = UNSET
    port: int | UnsetType = UNSET
    settings: dict[str, Any] | UnsetType = UNSET
    stream_settings: dict[str, Any] | UnsetType = UNSET
    sniffing: dict[str, Any] | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    version: int | UnsetType = UNSET
    """As read; when given, a change in between refuses the edit."""


class InboundView(NamedTuple):
    """An inbound with what it is made of and what went over it."""

    row: Inbound
    body: InboundBody
    clients_count: int
    totals: Totals


async def list_inbounds(
    context: Context,
    actor: Actor,
    *,
    server_id: int | None = None,
    search: str = "",
    page: int = 1,
    page_size: int = 1000,
) -> tuple[Sequence[InboundView], int]:
    """Inbounds in their order, with how many there are."""
    authorize(actor, "inbounds.read")
    async with context.database.read() as session:
        rows, total = await store.list_inbounds(
            session, server_id=server_id, search=search, offset=(page - 1) * page_size, limit=page_size
        )
        return [_shown(actor, view) for view in await _views(session, context, rows)], total


async def get_inbound(context: Context, actor: Actor, inbound_id: int) -> InboundView:
    """One inbound. Raises `NotFound`."""
    authorize(actor, "inbounds.read")
    async with context.database.read() as session:
        return _shown(actor, await _view(session, context, inbound_id))


async def create_inbound(context: Context, actor: Actor, new: InboundNew) -> tuple[InboundView, list[int]]:
    """A new inbound; the ids of the tasks this caused. Raises `Invalid` with the fields that are wrong."""
    authorize(actor, "inbounds.write")
    _check_remark(new.remark)
    async with context.database.write() as session:
        async with state.changing(session, context, [new.server_id], operation="add_inbound", actor=actor) as change:
            server = await find_server(session, new.server_id)
            if server is None:
                raise invalid("server_id", "There is no such server.", "not_found")
            if server[0].retiring_at is not None:
                raise invalid("server_id", "This server is being deleted.", "server_retiring")
            ref = await store.unused_ref(session, Inbound, "inbound")
            given = InboundBody(
                ref=ref,
                listen=new.listen.strip(),
                port=new.port,
                protocol=new.protocol,
                settings=new.settings,
                stream_settings=new.stream_settings,
                sniffing=new.sniffing,
            )
            body = await _checked(session, context, new.server_id, given)
            row = Inbound(
                ref=ref,
                server_id=new.server_id,
                remark=new.remark.strip(),
                protocol=new.protocol,
                enabled=new.enabled,
                created_at=change.now,
                updated_at=change.now,
            )
            write_body(context, row, body)
            session.add(row)
            await session.flush()
            change.scope = Scope(inbounds=frozenset({ref}))
            note(session, actor, "add_inbound", "inbound", str(row.id), change.now, name=row.remark, after=body)
        return await _view(session, context, row.id), change.task_ids


async def edit_inbound(
    context: Context, actor: Actor, inbound_id: int, edit: InboundEdit
) -> tuple[InboundView, list[int]]:
    """Changes an inbound; the ids of the tasks this caused. Raises `Invalid`, `NotFound` or `EditedMeanwhile`."""
    authorize(actor, "inbounds.write")
    if edit.remark is not UNSET:
        _check_remark(edit.remark)
    server_id = await _server_of(context, inbound_id)
    async with context.database.write() as session:
        async with state.changing(session, context, [server_id], operation="edit_inbound", actor=actor) as change:
            row = await session.get(Inbound, inbound_id, with_for_update=True, populate_existing=True)
            if row is None:
                raise NotFound("There is no such inbound.")
            before = inbound_body(row, context.vault)
            names = ("listen", "port", "settings", "stream_settings", "sniffing")
            fields = {name: value for name in names if (value := getattr(edit, name)) is not UNSET}
            _check_version(edit, row, before)
            body = await _checked(session, context, server_id, msgspec.structs.replace(before, **fields), but=row.id)
            if edit.remark is not UNSET:
                row.remark = edit.remark.strip()
            if edit.enabled is not UNSET:
                row.enabled = edit.enabled
            write_body(context, row, body)
            if default_flow(body) != default_flow(before):
                await move_flows(session, context, row, default_flow(body))
            row.version += 1
            row.updated_at = change.now
            change.scope = Scope(inbounds=frozenset({row.ref}))
            note(
                session, actor, "edit_inbound", "inbound", str(row.id), change.now, name=row.remark,
                before=before, after=body,
            )  # fmt: skip
        return await _view(session, context, inbound_id), change.task_ids


async def delete_inbound(context: Context, actor: Actor, inbound_id: int) -> list[int]:
    """Removes an inbound everywhere; until its server has acknowledged it is `retiring`."""
    authorize(actor, "inbounds.write")
    server_id = await _server_of(context, inbound_id)
    async with context.database.write() as session:
        async with state.changing(session, context, [server_id], operation="delete_inbound", actor=actor) as change:
            row = await session.get(Inbound, inbound_id, with_for_update=True, populate_existing=True)
            if row is None:
                raise NotFound("There is no such inbound.")
            change.scope = Scope(inbounds=frozenset({row.ref}))
            tombstone = Tombstone(
                kind="inbound", key=str(row.ref), name=row.remark, server_id=server_id, deleted_at=change.now
            )
            session.add(tombstone)
            note(session, actor, "delete_inbound", "inbound", str(row.id), change.now, name=row.remark)
            note_event(session, "inbound_deleted", change.now, subject=row.remark)
            await session.delete(row)
        tombstone.retiring = bool(change.task_ids)
    return change.task_ids


def _shown(actor: Actor, view: InboundView) -> InboundView:
    """The inbound as the actor may see it: keys and passwords are for who may change them."""
    if may(actor, "inbounds.write"):
        return view
    hidden = {name: redact(getattr(view.body, name)) for name in ("settings", "stream_settings", "sniffing")}
    return view._replace(body=msgspec.structs.replace(view.body, **hidden))


def write_body(context: Context, row: Inbound, body: InboundBody) -> None:
    """Puts what Xray is told into the row's columns, sealed."""
    row.listen, row.port = body.listen, body.port
    row.network, row.security = transport_name(body.stream_settings), security_name(body.stream_settings)
    config = InboundConfig(settings=body.settings, stream_settings=body.stream_settings, sniffing=body.sniffing)
    row.config_sealed = context.vault.seal_value(inbound_record(row.ref), config)


async def _checked(
    session: AsyncSession, context: Context, server_id: int, given: InboundBody, *, but: int | None = None
) -> InboundBody:
    if problems := _unfit(given):
        raise Invalid(problems)
    body = complete_inbound(given)
    errors = [FieldError(each.path, each.reason, each.code) for each in lint_inbound(body)]
    others = {row.ref: row for row in await store.list_of_server(session, server_id) if row.id != but}
    clash = find_port_clash(body, {ref: inbound_body(row, context.vault) for ref, row in others.items()})
    if clash is not None:
        name = others[clash].remark or f"#{others[clash].id}"
        errors.append(FieldError("port", f"Port {body.port} is already used by the inbound {name}.", "port_taken"))
    if holder := await holder_of(session, context, server_id, body):
        errors.append(FieldError("port", f"Port {body.port} is used by the {holder} of this machine.", "port_taken"))
    if errors:
        raise Invalid(errors)
    return body


async def holder_of(session: AsyncSession, context: Context, server_id: int, body: InboundBody) -> str:
    """Which part of xfleet itself listens on this port, where the server is the controller's own machine."""
    found = await find_server(session, server_id)
    if found is None or found[0].slug != LOCAL or body.listen.startswith(("/", "@")):
        return ""
    urls = context.fleet.broker_urls if context.fleet is not None else context.settings.broker_url.split(",")
    holders = {urlsplit(url.strip()).port: "broker" for url in urls} | {context.settings.port: "panel"}
    return holders.get(body.port, "")


async def move_flows(session: AsyncSession, context: Context, row: Inbound, flow: str) -> None:
    """Gives every client on the inbound this flow."""
    for client, link in await store.list_links(session, row.id):
        record = credentials_record(client.ref, row.ref)
        held = context.vault.open_value(record, link.credentials_sealed, Credentials)
        link.credentials_sealed = context.vault.seal_value(record, msgspec.structs.replace(held, flow=flow))


async def _server_of(context: Context, inbound_id: int) -> int:
    async with context.database.read() as session:
        row = await session.get(Inbound, inbound_id)
    if row is None:
        raise NotFound("There is no such inbound.")
    return row.server_id


async def _view(session: AsyncSession, context: Context, inbound_id: int) -> InboundView:
    row = await session.get(Inbound, inbound_id)
    if row is None:
        raise NotFound("There is no such inbound.")
    return (await _views(session, context, [row]))[0]


async def _views(session: AsyncSession, context: Context, rows: Sequence[Inbound]) -> list[InboundView]:
    counts = await store.count_clients(session, [row.id for row in rows])
    totals = await store.sum_totals(session, [row.ref for row in rows])
    return [
        InboundView(row, inbound_body(row, context.vault), counts.get(row.id, 0), totals.get(row.ref, Totals()))
        for row in rows
    ]


def _check_version(edit: InboundEdit, row: Inbound, before: InboundBody) -> None:
    """Raises `EditedMeanwhile` with both values of every field, secrets left out."""
    if edit.version in (UNSET, row.version):
        return
    theirs: dict[str, Any] = {"remark": row.remark, "enabled": row.enabled}
    yours: dict[str, Any] = {}
    for name in ("remark", "enabled", "listen", "port"):
        theirs.setdefault(name, getattr(before, name, None))
        if (value := getattr(edit, name)) is not UNSET:
            yours[name] = value
    for name in ("settings", "stream_settings", "sniffing"):
        if (value := getattr(edit, name)) is not UNSET:
            had, wants = dict(leaves(bare(getattr(before, name)), name)), dict(leaves(bare(value), name))
            theirs |= {path: had.get(path, NOT_SET) for path in had | wants}
            yours |= {path: wants.get(path, NOT_SET) for path in had | wants}
    check_version(edit.version, row.version, both(theirs, yours))


def _check_remark(remark: str) -> None:
    if len(remark.strip()) > MAX_REMARK:
        raise invalid("remark", f"The remark may have at most {MAX_REMARK} characters.", "too_long")
    if has_controls(remark):
        raise invalid("remark", "Control characters are not allowed here.", "control_characters")


def _unfit(body: InboundBody) -> list[FieldError]:
    """What can be neither stored nor read by everybody, before anything looks inside."""
    errors: list[FieldError] = []
    if not 0 <= body.port <= MAX_PORT:
        errors.append(FieldError("port", f"The port must be between 1 and {MAX_PORT}.", "bad_port"))
    if len(body.listen) > MAX_LISTEN or has_controls(body.listen):
        errors.append(FieldError("listen", "Listen is empty, an IP address or the path of a socket.", "bad_listen"))
    for field in ("settings", "stream_settings", "sniffing"):
        if is_too_deep(getattr(body, field), MAX_DEPTH):
            errors.append(FieldError(field, f"Objects may nest {MAX_DEPTH} deep.", "too_deep"))
        elif has_nul(getattr(body, field)):
            errors.append(FieldError(field, "NUL characters are not allowed here.", "control_characters"))
    return errors
