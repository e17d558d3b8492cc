"""Telegram accounts that act for admins: one-time codes, bindings, and what they may ask."""

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.control import Actor as BotActor
from xfleet_contracts.control import ActorRequest, BindRequest, FleetStatus, ServerLine
from xfleet_contracts.errors import Refusal
from xfleet_controller.audit.store import note
from xfleet_controller.auth import service as auth
from xfleet_controller.auth import throttle
from xfleet_controller.auth.models import Admin
from xfleet_controller.auth.rights import Actor, authorize
from xfleet_controller.auth.service import TOKEN_PREFIX, NotSignedIn
from xfleet_controller.bot.models import BotBinding, BotCode
from xfleet_controller.clients import store as clients
from xfleet_controller.context import Context
from xfleet_controller.errors import NotFound
from xfleet_controller.servers import service as servers
from xfleet_controller.servers.presence import ONLINE
from xfleet_controller.sql import insert_into
from xfleet_controller.traffic.models import ClientTotal

CODE_LIFETIME = timedelta(minutes=15)
CODE_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
CODE_LENGTH = 10


class CodeRefused(Refusal):
    """A wrong, used or old code: always the same words."""

    code = "code_refused"
    status = 403
    message = "This code is not valid. Make a new one in the panel."


class NotBound(Refusal):
    """A Telegram account nobody has bound."""

    code = "not_bound"
    status = 403
    message = "This Telegram account is not bound to an admin. Make a bot code in the panel and send it here."


class TokenWrong(Refusal):
    """The API token of a command line is unknown, expired or revoked."""

    code = "not_signed_in"
    status = 401
    message = "The API token in these credentials is not valid (any more). Run: xfleet-controller cli-credentials"


class NewCode(NamedTuple):
    """A code, shown once."""

    code: str
    expires_at: datetime


async def make_code(context: Context, actor: Actor) -> NewCode:
    """A one-time code that binds a Telegram account to the actor; older ones of the actor stop working."""
    authorize(actor, "bot.write")
    now = context.clock.now()
    code = "".join(secrets.choice(CODE_LETTERS) for _ in range(CODE_LENGTH))
    async with context.database.write() as session:
        await session.execute(delete(BotCode).where(BotCode.admin_id == actor.admin_id))
        session.add(
            BotCode(
                code_sha256=_hash(code), admin_id=actor.admin_id or 0, created_at=now, expires_at=now + CODE_LIFETIME
            )
        )
        note(session, actor, "make_bot_code", "admin", str(actor.admin_id), now, name=actor.name)
    return NewCode(code, now + CODE_LIFETIME)


async def bind(context: Context, request: BindRequest) -> BotActor:
    """Binds a Telegram account by a code. Raises `CodeRefused`, or `TooManyTries` after several wrong ones."""
    now, account, address = context.clock.now(), "telegram-bind", f"telegram:{request.telegram_id}"
    async with context.database.read() as session:
        await throttle.check(session, account, address, now)
    async with context.database.write() as session:
        done = await session.execute(
            update(BotCode)
            .where(BotCode.code_sha256 == _hash(request.code), BotCode.used_at.is_(None), BotCode.expires_at > now)
            .values(used_at=now)
        )
        if done.rowcount:  # type: ignore[attr-defined]
            row = await session.get_one(BotCode, _hash(request.code))
            admin = await session.get_one(Admin, row.admin_id)
            if not admin.enabled:
                raise CodeRefused
            values = {"admin_id": admin.id, "name": request.name[:100], "created_at": now}
            statement = insert_into(session, BotBinding).values(telegram_id=request.telegram_id, **values)
            await session.execute(statement.on_conflict_do_update(index_elements=["telegram_id"], set_=values))
            await throttle.forget(session, account, address)
            actor = _actor(admin)
            note(session, actor, "bind_bot", "admin", str(admin.id), now, name=admin.name, after=request)
            return BotActor(admin=admin.name, role=admin.role)
        await throttle.note_failure(session, account, address, now)
    raise CodeRefused


async def list_bindings(context: Context, actor: Actor) -> Sequence[BotBinding]:
    """Telegram accounts that act for the actor."""
    authorize(actor, "bot.read")
    query = select(BotBinding).where(BotBinding.admin_id == actor.admin_id).order_by(BotBinding.created_at)
    async with context.database.read() as session:
        return (await session.scalars(query)).all()


async def unbind(context: Context, actor: Actor, telegram_id: int) -> None:
    """A Telegram account of the actor acts for nobody any more. Raises `NotFound`."""
    authorize(actor, "bot.write")
    mine = (BotBinding.telegram_id == telegram_id, BotBinding.admin_id == actor.admin_id)
    async with context.database.write() as session:
        done = await session.execute(delete(BotBinding).where(*mine))
        if not done.rowcount:  # type: ignore[attr-defined]
            raise NotFound("There is no such Telegram account.")
        before = {"telegram_id": telegram_id}
        note(
            session, actor, "unbind_bot", "admin", str(actor.admin_id), context.clock.now(), name=actor.name,
            before=before,
        )  # fmt: skip


async def forget_admin(session: AsyncSession, admin_id: int) -> None:
    """No Telegram account acts for this admin any more, and no code waits."""
    await session.execute(delete(BotBinding).where(BotBinding.admin_id == admin_id))
    await session.execute(delete(BotCode).where(BotCode.admin_id == admin_id))


async def who_is(context: Context, telegram_id: int) -> Actor:
    """The admin a Telegram account acts for. Raises `NotBound`."""
    async with context.database.read() as session:
        admin = await session.scalar(
            select(Admin)
            .join(BotBinding, BotBinding.admin_id == Admin.id)
            .where(BotBinding.telegram_id == telegram_id, Admin.enabled.is_(True))
        )
    if admin is None:
        raise NotBound
    return _actor(admin)


async def who_asks(context: Context, request: ActorRequest) -> Actor:
    """For which Telegram account's admin the bot asks; only its own subjects lead here. Raises `NotBound`."""
    if request.token:
        raise NotBound("The bot asks for Telegram accounts; API tokens are for command lines.")
    return await who_is(context, request.telegram_id)


async def who_holds(context: Context, request: ActorRequest) -> Actor:
    """Whose API token a command line holds; any of them could name a Telegram account. Raises `TokenWrong`."""
    if request.telegram_id:
        raise TokenWrong("A command line asks with its API token, and for no Telegram account.")
    if not request.token.startswith(TOKEN_PREFIX):
        raise TokenWrong
    try:
        return await auth.who_is(context, request.token, kind="bearer", address="")
    except NotSignedIn:
        raise TokenWrong from None


async def status(context: Context, actor: Actor) -> FleetStatus:
    """The fleet in a few lines."""
    authorize(actor, "servers.read")
    views, _ = await servers.list_servers(context, actor)
    async with context.database.read() as session:
        clients_count = await clients.count_clients(session)
        sums = (await session.execute(select(func.sum(ClientTotal.up_bytes), func.sum(ClientTotal.down_bytes)))).one()
    return FleetStatus(
        servers=tuple(line_of(context, view) for view in views),
        clients_count=clients_count,
        clients_online_count=len(context.presence.online_clients()),
        up_bytes=int(sums[0] or 0),
        down_bytes=int(sums[1] or 0),
    )


def line_of(context: Context, view: servers.ServerView) -> ServerLine:
    """A server in one line; without a fresh heartbeat it shows no figures."""
    row, seen = view.server, context.presence.get(view.server.slug)
    line = ServerLine(
        slug=row.slug,
        name=row.name,
        status=view.status,
        mode=row.mode,
        enabled=row.enabled,
        xray=row.xray_version,
        agent=row.agent_version,
        desired_revision=view.revision.desired_revision,
        applied_revision=view.revision.applied_revision,
        degraded_count=len(view.revision.degraded),
        last_seen_at_ms=int(row.last_seen_at.timestamp() * 1000) if row.last_seen_at else 0,
    )
    if seen is None or view.status != ONLINE:
        return line
    beat, host = seen.beat, seen.beat.host
    memory = 100 * host.memory_used_bytes / host.memory_total_bytes if host.memory_total_bytes else 0.0
    return msgspec.structs.replace(
        line,
        xray=f"{beat.xray.status} {beat.xray.version}".strip(),
        agent=beat.agent_version,
        applied_revision=beat.applied_revision,
        cpu_percent=host.cpu_percent,
        memory_percent=round(memory, 1),
        clients_online_count=beat.online_count,
        up_bytes_s=host.network_up_bytes_s,
        down_bytes_s=host.network_down_bytes_s,
        last_seen_at_ms=seen.received_at_ms,
    )


def _actor(admin: Admin) -> Actor:
    return Actor(name=admin.name, role=admin.role, admin_id=admin.id, channel="bot")


def _hash(code: str) -> str:
    return hashlib.sha256(code.strip().upper().encode()).hexdigest()
