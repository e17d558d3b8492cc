"""A server's configuration without clients and secrets, and the versions of it that are kept.

A version is written by `state.changing`, so that no way of changing a configuration can forget it.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.codec import REDACTED, SECRET_KEYS
from xfleet_controller.auth.rights import SYSTEM
from xfleet_controller.context import Context
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.servers.compile import inbound_body, server_entities
from xfleet_controller.servers.models import ConfigVersion, Server, ServerRevision
from xfleet_controller.vault import Vault

VERSIONS_KEPT_COUNT = 200
FIRST = "first_version"
"""Operation of the version that only says how things were when versions began to be kept."""
MORE_SECRET_KEYS = frozenset({"authorization", "proxy-authorization", "cookie", "uuid", "clients", "users"})
"""Beside the codec's: what a copy that is kept for long had better not hold either."""
OPEN_WORDS = frozenset({"none", ""})
"""Values under a secret's name that say that there is no secret."""


class InboundForm(msgspec.Struct, frozen=True, kw_only=True):
    """An inbound in a version; the objects are Xray's own JSON, a secret is `codec.REDACTED`."""

    remark: str = ""
    listen: str = ""
    port: int
    protocol: str
    enabled: bool = True
    settings: dict[str, Any] = {}
    stream_settings: dict[str, Any] = {}
    sniffing: dict[str, Any] = {}

    @property
    def title(self) -> str:
        """As people know it."""
        return f"{self.remark} (port {self.port})" if self.remark else f"{self.protocol} on port {self.port}"


class ConfigForm(msgspec.Struct, frozen=True, kw_only=True):
    """What a version holds."""

    inbounds: dict[str, InboundForm] = {}
    """By ref."""
    allow_private_destinations: bool = False
    entities: dict[str, dict[str, Any]] = {}
    """Outbounds and settings as they are sent, by `kind id`: they follow from the rest, and are kept to be read."""


def is_secret_key(key: str) -> bool:
    """Whether a value under this key of Xray's JSON is a secret."""
    return key.lower() in SECRET_KEYS or key.lower() in MORE_SECRET_KEYS


def is_secret(key: str, value: Any) -> bool:
    """Whether this is a secret that is really there."""
    return is_secret_key(key) and bool(value) and not (isinstance(value, str) and value in OPEN_WORDS)


def bare(value: Any) -> Any:
    """The value with every secret replaced by `codec.REDACTED`."""
    if isinstance(value, dict):
        return {str(key): REDACTED if is_secret(str(key), each) else bare(each) for key, each in value.items()}
    if isinstance(value, list):
        return [bare(each) for each in value]
    return value


def form_of(server: Server, inbounds: list[Inbound], vault: Vault) -> ConfigForm:
    """The configuration as it is now."""
    forms: dict[str, InboundForm] = {}
    for row in inbounds:
        body = inbound_body(row, vault)
        forms[str(row.ref)] = InboundForm(
            remark=row.remark,
            listen=row.listen,
            port=row.port,
            protocol=row.protocol,
            enabled=row.enabled,
            settings=bare(body.settings),
            stream_settings=bare(body.stream_settings),
            sniffing=bare(body.sniffing),
        )
    entities = {
        f"{kind} {entity_id}": bare(msgspec.json.decode(body))
        for (kind, entity_id), body in server_entities(server).items()
    }
    return ConfigForm(inbounds=forms, allow_private_destinations=server.allow_private_destinations, entities=entities)


async def present_form(session: AsyncSession, vault: Vault, server: Server) -> ConfigForm:
    """The configuration as it stands in this transaction."""
    query = select(Inbound).where(Inbound.server_id == server.id).order_by(Inbound.id)
    return form_of(server, list((await session.scalars(query)).all()), vault)


async def note_version(
    session: AsyncSession, vault: Vault, row: ServerRevision, *, operation: str, actor: str, now: datetime
) -> None:
    """Writes a version when the configuration is another one than the newest version says."""
    server = await session.get(Server, row.server_id)
    if server is None:
        return
    body = msgspec.to_builtins(await present_form(session, vault, server))
    newest = await find_newest(session, row.server_id)
    if newest is not None and newest.body == body:
        return
    session.add(
        ConfigVersion(
            server_id=row.server_id, revision=row.desired_revision, operation=operation[:50], actor=actor[:100],
            body=body, created_at=now,
        )
    )  # fmt: skip
    await session.flush()
    await _forget_the_old(session, row.server_id)


async def ensure_first_versions(context: Context) -> None:
    """One version for every server that has none, such as after an upgrade: what a first change leaves behind."""
    async with context.database.write() as session:
        known = select(ConfigVersion.server_id)
        query = select(ServerRevision).where(ServerRevision.server_id.not_in(known)).order_by(ServerRevision.server_id)
        for row in (await session.scalars(query)).all():
            now = context.clock.now()
            await note_version(session, context.vault, row, operation=FIRST, actor=SYSTEM.label, now=now)


async def find_newest(session: AsyncSession, server_id: int) -> ConfigVersion | None:
    """The newest version of a server."""
    query = select(ConfigVersion).where(ConfigVersion.server_id == server_id)
    return await session.scalar(query.order_by(ConfigVersion.id.desc()).limit(1))


async def find_at(session: AsyncSession, server_id: int, revision: int) -> ConfigVersion | None:
    """The version that stood at this revision."""
    query = select(ConfigVersion).where(ConfigVersion.server_id == server_id, ConfigVersion.revision <= revision)
    return await session.scalar(query.order_by(ConfigVersion.id.desc()).limit(1))


def opened(row: ConfigVersion) -> ConfigForm:
    """What a version holds."""
    return msgspec.convert(row.body, ConfigForm)


async def _forget_the_old(session: AsyncSession, server_id: int) -> None:
    ids = select(ConfigVersion.id).where(ConfigVersion.server_id == server_id).order_by(ConfigVersion.id.desc())
    last = await session.scalar(ids.offset(VERSIONS_KEPT_COUNT).limit(1))
    if last is not None:
        await session.execute(
            delete(ConfigVersion).where(ConfigVersion.server_id == server_id, ConfigVersion.id <= last)
        )


def titles_of(*forms: ConfigForm) -> Mapping[str, str]:
    """What inbounds are called, by ref; the last form that knows one decides."""
    return {ref: each.title for form in forms for ref, each in form.inbounds.items()}
