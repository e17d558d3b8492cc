"""Deciding about strays: adopt them as rows under their own refs, keys and credentials, or take them off the server."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.desired_state import ClientBody, InboundBody
from xfleet_controller.audit.store import note
from xfleet_controller.auth.rights import Actor, authorize
from xfleet_controller.clients import store as clients
from xfleet_controller.clients.models import Client, ClientInbound, Tombstone
from xfleet_controller.clients.service import new_sub_id
from xfleet_controller.context import Context
from xfleet_controller.errors import FieldError, Invalid, NotFound
from xfleet_controller.inbounds import store as inbounds
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.inbounds.service import write_body
from xfleet_controller.servers import state, store
from xfleet_controller.servers.compile import Credentials, Scope, credentials_record, inbound_body
from xfleet_controller.servers.index import Name
from xfleet_controller.servers.naming import load_names
from xfleet_controller.servers.service import check_staying
from xfleet_controller.servers.strays import Strays, buried_clients, forget_strays, load_strays, stray_client_refs
from xfleet_xraykit.lint import find_port_clash, lint_inbound

ADOPT, DISCARD = "adopt_strays", "discard_strays"
RECOVERED = "recovered"


class StrayLine(msgspec.Struct, frozen=True, kw_only=True):
    """One entity only the agent knew."""

    kind: str
    id: str
    """`<ref>` of an inbound, `<client ref>.<inbound ref>` of a client."""
    name: str
    """What it would be called; a known client's own name."""
    text: str


class StrayChoice(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which strays are decided about."""

    ids: list[str] | None = None
    """As `StrayLine.id`; left out: all of the server."""


class Decided(NamedTuple):
    """What became of them."""

    count: int
    task_ids: list[int]


async def list_stray_lines(context: Context, actor: Actor, server_id: int) -> Sequence[StrayLine]:
    """The strays of a server as people can judge them, inbounds first. Raises `NotFound`."""
    authorize(actor, "servers.read")
    async with context.database.read() as session:
        if await store.find_server(session, server_id) is None:
            raise NotFound("There is no such server.")
        strays = await load_strays(session, context.vault, server_id)
        names = await load_names(session, strays.names)
    lines = [
        StrayLine(kind="inbound", id=str(ref), name=_remark(body), text=_words(body))
        for ref, body in sorted(strays.inbounds.items())
    ]
    for (client, inbound), body in sorted(strays.clients.items()):
        entity: Name = ("client", f"{client}.{inbound}")
        known = names.of(entity)
        until = "" if body.expires_at_ms is None else f"expires {_moment(body.expires_at_ms):%Y-%m-%d %H:%M} UTC"
        lines.append(StrayLine(kind="client", id=entity[1], name=known or f"{RECOVERED}-{client}", text=until))
    return lines


async def adopt(context: Context, actor: Actor, server_id: int, choice: StrayChoice) -> Decided:
    """Makes rows of strays; clients come with the inbound they are on. Nobody's connection notices.

    Raises `NotFound`, `ServerRetiring`, or `Invalid` when an inbound's port has been given away meanwhile; then nothing
    is changed.
    """
    authorize(actor, "servers.write")
    authorize(actor, "clients.write")
    async with context.database.write() as session:
        async with state.changing(session, context, [server_id], operation=ADOPT, actor=actor) as change:
            await check_staying(session, server_id)
            strays = await _chosen(session, context, server_id, choice, with_inbounds=True)
            rows = await _adopt_inbounds(session, context, server_id, strays, change.now)
            left = await _adopt_clients(session, context, strays, rows, change.now)
            done = [name for name in strays.names if name not in left]
            await forget_strays(session, server_id, done)
            await session.flush()
            change.scope = _scope_of(strays)
            note(
                session, actor, ADOPT, "server", str(server_id), change.now,
                after={"inbounds": len(strays.inbounds), "clients": len(strays.clients) - len(left)},
            )  # fmt: skip
        return Decided(len(done), change.task_ids)


async def discard(context: Context, actor: Actor, server_id: int, choice: StrayChoice) -> Decided:
    """Takes strays off the server; what they still move is counted under their refs.

    Raises `NotFound` or `ServerRetiring`.
    """
    authorize(actor, "servers.write")
    async with context.database.write() as session:
        async with state.changing(session, context, [server_id], operation=DISCARD, actor=actor) as change:
            await check_staying(session, server_id)
            strays = await _chosen(session, context, server_id, choice, with_inbounds=False)
            await forget_strays(session, server_id, strays.names)
            for ref, body in strays.inbounds.items():
                await _bury(session, "inbound", ref, _remark(body), server_id, change.now)
            elsewhere = await stray_client_refs(session)
            for client in {client for client, _ in strays.clients} - elsewhere:
                if await clients.find_by_ref(session, client) is None:
                    await _bury(session, "client", client, f"{RECOVERED}-{client}", None, change.now)
            await session.flush()
            change.scope = _scope_of(strays)
            note(
                session, actor, DISCARD, "server", str(server_id), change.now,
                after={"inbounds": len(strays.inbounds), "clients": len(strays.clients)},
            )  # fmt: skip
        return Decided(len(strays.names), change.task_ids)


async def _chosen(
    session: AsyncSession, context: Context, server_id: int, choice: StrayChoice, *, with_inbounds: bool
) -> Strays:
    """The strays that are meant: a client with its inbound when adopting, an inbound with its clients always."""
    if await store.find_server(session, server_id) is None:
        raise NotFound("There is no such server.")
    strays = await load_strays(session, context.vault, server_id)
    if choice.ids is None:
        return strays
    wanted = set(choice.ids)
    if unknown := wanted - {entity_id for _, entity_id in strays.names}:
        raise NotFound(f"There is no stray {min(unknown)} on this server.")
    refs = {int(each) for each in wanted if "." not in each}
    if with_inbounds:
        refs |= {int(each.partition(".")[2]) for each in wanted if "." in each} & strays.inbounds.keys()
    return Strays(
        {ref: body for ref, body in strays.inbounds.items() if ref in refs},
        {pair: body for pair, body in strays.clients.items() if f"{pair[0]}.{pair[1]}" in wanted or pair[1] in refs},
    )


async def _adopt_inbounds(
    session: AsyncSession, context: Context, server_id: int, strays: Strays, now: datetime
) -> dict[int, Inbound]:
    rows = {row.ref: row for row in await inbounds.list_of_server(session, server_id)}
    bodies = {ref: inbound_body(row, context.vault) for ref, row in rows.items()}
    errors: list[FieldError] = []
    for ref, body in strays.inbounds.items():
        errors += [FieldError(f"{ref}.{each.path}", each.reason, each.code) for each in lint_inbound(body)]
        clash = find_port_clash(body, bodies | {each: strays.inbounds[each] for each in strays.inbounds if each != ref})
        if clash is not None:
            reason = f"Port {body.port} of {_remark(body)} is used by another inbound by now. Move that one first."
            errors.append(FieldError(f"{ref}.port", reason, "port_taken"))
    if errors:
        raise Invalid(errors)
    for ref, body in strays.inbounds.items():
        row = Inbound(
            ref=ref, server_id=server_id, remark=_remark(body), protocol=body.protocol, created_at=now, updated_at=now
        )
        write_body(context, row, body)
        session.add(row)
        rows[ref] = row
    await session.flush()
    return rows


async def _adopt_clients(
    session: AsyncSession, context: Context, strays: Strays, rows: dict[int, Inbound], now: datetime
) -> set[Name]:
    """The entities that stay strays, because their inbound is not there or the client was deleted."""
    left: set[Name] = set()
    made: dict[int, Client] = {}
    deleted = await buried_clients(session, {ref for ref, _ in strays.clients})
    for (ref, inbound_ref), body in sorted(strays.clients.items()):
        inbound = rows.get(inbound_ref)
        if inbound is None or ref in deleted:
            left.add(("client", f"{ref}.{inbound_ref}"))
            continue
        row = made.get(ref) or await clients.find_by_ref(session, ref) or await _new_client(session, ref, body, now)
        made[ref] = row
        if await session.get(ClientInbound, (row.id, inbound.id)) is not None:
            continue  # put there by hand meanwhile: what the database has is what runs
        credentials = Credentials(uuid=body.uuid, flow=body.flow, password=body.password)
        sealed = context.vault.seal_value(credentials_record(ref, inbound_ref), credentials)
        session.add(ClientInbound(client_id=row.id, inbound_id=inbound.id, credentials_sealed=sealed, created_at=now))
    await session.flush()
    return left


async def _new_client(session: AsyncSession, ref: int, body: ClientBody, now: datetime) -> Client:
    name = f"{RECOVERED}-{ref}"
    row = Client(
        ref=ref, name=name, name_key=name, sub_id=new_sub_id(), limits={}, created_at=now, updated_at=now,
        comment="Adopted from a server after a restored backup.",
        expires_at=None if body.expires_at_ms is None else _moment(body.expires_at_ms),
    )  # fmt: skip
    session.add(row)
    await session.flush()
    return row


async def _bury(session: AsyncSession, kind: str, ref: int, name: str, server_id: int | None, now: datetime) -> None:
    if await session.get(Tombstone, (kind, str(ref))) is None:
        session.add(Tombstone(kind=kind, key=str(ref), name=name[:200], server_id=server_id, deleted_at=now))


def _scope_of(strays: Strays) -> Scope:
    return Scope(inbounds=frozenset(strays.inbounds), clients=frozenset(client for client, _ in strays.clients))


def _remark(body: InboundBody) -> str:
    return f"{RECOVERED} {body.protocol} {body.port}"


def _words(body: InboundBody) -> str:
    stream: Iterable[str] = (str(body.stream_settings.get(name) or "") for name in ("network", "security"))
    return ", ".join(part for part in (body.protocol, *stream, f"port {body.port}") if part)


def _moment(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)
