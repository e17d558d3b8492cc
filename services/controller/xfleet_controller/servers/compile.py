"""From rows to entities: what a server should run, in whole or only what a change can have touched."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.codec import canonical
from xfleet_contracts.desired_state import ClientBody, InboundBody, OutboundBody, SettingsBody
from xfleet_controller.clients.models import Client, ClientInbound
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.servers.index import Name, StateIndex
from xfleet_controller.servers.models import Server
from xfleet_controller.servers.strays import running_strays
from xfleet_controller.sql import batches
from xfleet_controller.vault import Vault
from xfleet_xraykit.counters import client_email

DIRECT = "direct"
BLOCKED = "block"


class InboundConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What an inbound's sealed column holds."""

    settings: dict[str, Any] = {}
    stream_settings: dict[str, Any] = {}
    sniffing: dict[str, Any] = {}


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What a client-on-inbound's sealed column holds."""

    uuid: str = ""
    flow: str = ""
    password: str = ""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What a change can have touched; nothing else is looked at."""

    whole: bool = False
    """Everything of the servers, their outbounds and settings too."""
    inbounds: frozenset[int] = field(default_factory=frozenset[int])
    """Refs of inbounds: the inbound and every client on it."""
    clients: frozenset[int] = field(default_factory=frozenset[int])
    """Refs of clients, on whichever inbounds."""

    def has(self, name: Name) -> bool:
        """Whether this entity is in scope."""
        if self.whole:
            return True
        first, _, inbound = name[1].partition(".")
        if name[0] == "inbound":
            return int(first) in self.inbounds
        return name[0] == "client" and (int(first) in self.clients or int(inbound) in self.inbounds)

    def names_in(self, index: StateIndex) -> set[Name]:
        """The entities that exist now and are in scope."""
        if self.whole:
            return set(index.names())
        found: set[Name] = set()
        for ref in self.inbounds:
            found.update(index.names_of_inbound(ref))
        for ref in self.clients:
            found.update(index.names_of_client(ref))
        return found


def inbound_record(ref: int) -> str:
    """Name under which an inbound's configuration is sealed."""
    return f"inbound:{ref}"


def credentials_record(client_ref: int, inbound_ref: int) -> str:
    """Name under which a client's credentials on an inbound are sealed."""
    return f"credentials:{client_ref}.{inbound_ref}"


def inbound_body(row: Inbound, vault: Vault) -> InboundBody:
    """The inbound as it is sent."""
    config = vault.open_value(inbound_record(row.ref), row.config_sealed, InboundConfig)
    return InboundBody(
        ref=row.ref,
        listen=row.listen,
        port=row.port,
        protocol=row.protocol,
        settings=config.settings,
        stream_settings=config.stream_settings,
        sniffing=config.sniffing,
    )


def client_body(client: Client, inbound_ref: int, sealed: bytes, vault: Vault) -> ClientBody:
    """The client on this inbound as it is sent."""
    return client_body_of(client.ref, client.expires_at, inbound_ref, sealed, vault)


def client_body_of(
    client_ref: int, expires_at: datetime | None, inbound_ref: int, sealed: bytes, vault: Vault
) -> ClientBody:
    """As `client_body`, from columns."""
    credentials = vault.open_value(credentials_record(client_ref, inbound_ref), sealed, Credentials)
    return ClientBody(
        client=client_ref,
        inbound=inbound_ref,
        expires_at_ms=None if expires_at is None else int(expires_at.timestamp() * 1000),
        uuid=credentials.uuid,
        flow=credentials.flow,
        password=credentials.password,
    )


def server_entities(server: Server) -> dict[Name, bytes]:
    """Outbounds and settings every server starts with."""
    direct: dict[str, Any] = {}
    if server.allow_private_destinations:
        direct = {"finalRules": [{"action": "allow"}]}
    outbounds = (
        OutboundBody(position=0, tag=DIRECT, protocol="freedom", settings=direct),
        OutboundBody(position=1, tag=BLOCKED, protocol="blackhole"),
    )
    entities: dict[Name, bytes] = {("outbound", each.tag): canonical(each) for each in outbounds}
    entities["settings", "xray"] = canonical(SettingsBody())
    return entities


async def compile_entities(
    session: AsyncSession, vault: Vault, servers: Sequence[Server], scope: Scope
) -> dict[int, dict[Name, bytes]]:
    """The entities in scope as they should be, by server id, then by kind and id; few queries for many servers.

    A server that is disabled or on its way out carries no inbound and no client.
    """
    entities = {server.id: server_entities(server) if scope.whole else {} for server in servers}
    for ids in batches(sorted(server.id for server in servers if server.enabled and server.retiring_at is None)):
        if scope.whole or scope.inbounds:
            inbounds = select(Inbound).where(Inbound.server_id.in_(ids), Inbound.enabled.is_(True))
            if not scope.whole:
                inbounds = inbounds.where(Inbound.ref.in_(sorted(scope.inbounds)))
            for row in (await session.scalars(inbounds)).all():
                entities[row.server_id]["inbound", str(row.ref)] = canonical(inbound_body(row, vault))
        for condition in _client_conditions(scope):
            for server_id, client_ref, expires_at, inbound_ref, sealed in await _list_clients(session, ids, condition):
                body = client_body_of(client_ref, expires_at, inbound_ref, sealed, vault)
                entities[server_id]["client", client_email(client_ref, inbound_ref)] = canonical(body)
        for server_id, bodies in (await running_strays(session, vault, ids)).items():
            inside = {name: body for name, body in bodies.items() if scope.has(name)}
            entities[server_id] = inside | entities[server_id]
    return entities


def _client_conditions(scope: Scope) -> list[Any]:
    if scope.whole:
        return [None]
    conditions: list[Any] = [Inbound.ref.in_(refs) for refs in batches(sorted(scope.inbounds))]
    return [*conditions, *(Client.ref.in_(refs) for refs in batches(sorted(scope.clients)))]


async def _list_clients(session: AsyncSession, server_ids: Sequence[int], condition: Any) -> Sequence[Any]:
    query = (
        select(Inbound.server_id, Client.ref, Client.expires_at, Inbound.ref, ClientInbound.credentials_sealed)
        .join(ClientInbound, ClientInbound.client_id == Client.id)
        .join(Inbound, Inbound.id == ClientInbound.inbound_id)
        .where(
            Inbound.server_id.in_(server_ids),
            Inbound.enabled.is_(True),
            Client.enabled.is_(True),
            Client.cut_reason.is_(None),
        )
    )
    return (await session.execute(query if condition is None else query.where(condition))).all()
