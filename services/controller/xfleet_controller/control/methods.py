"""What bot and command line may ask and order; each is a service of panel and API under another name."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import or_, select

from xfleet_contracts import codec, control
from xfleet_contracts.control import Actor as ActorAnswer
from xfleet_contracts.control import (
    ActorRequest,
    BindRequest,
    CertificateProbe,
    Done,
    EnrollOrder,
    FleetStatus,
    JoinLine,
    ModeRequest,
    NoSuchServer,
    OrderRequest,
    ServerDiff,
    ServerLines,
    ServerRequest,
    TaskLine,
    TaskLines,
    TaskRequest,
    TasksRequest,
)
from xfleet_controller.auth.rights import Actor, authorize
from xfleet_controller.bot import service as bot
from xfleet_controller.context import Context
from xfleet_controller.fleet import service as fleet
from xfleet_controller.fleet.probe import make_probe
from xfleet_controller.joining import service as joining
from xfleet_controller.orders import service as orders
from xfleet_controller.orders.verbs import get_verb
from xfleet_controller.panel.store import server_names
from xfleet_controller.servers import service as servers
from xfleet_controller.servers.diff import server_diff
from xfleet_controller.servers.models import Server
from xfleet_controller.servers.service import ServerEdit, ServerNew
from xfleet_controller.tasks import service as tasks
from xfleet_controller.tasks.models import ServerTask
from xfleet_controller.tasks.store import TaskFilter

Method = Callable[[bytes], Awaitable[Any]]
MAX_TASKS = 200


class Methods:
    """The methods by name, for one kind of asker."""

    def __init__(self, context: Context, who: Callable[[Context, ActorRequest], Awaitable[Actor]]) -> None:
        self._context = context
        self._who_asks = who
        self.by_name: dict[str, Method] = {
            control.WHOAMI: self._whoami,
            control.STATUS: self._status,
            control.SERVERS: self._servers,
            control.DIFF: self._diff,
            control.MODE: self._mode,
            control.TASKS: self._tasks,
            control.TASK: self._task,
            control.ORDER: self._order,
            control.REVOKE: self._revoke,
            control.ENROLL: self._enroll,
            control.PROBE: self._probe,
        }

    async def _probe(self, payload: bytes) -> CertificateProbe:
        return await make_probe(self._context, await self._who(codec.decode(payload, ActorRequest)))

    async def _whoami(self, payload: bytes) -> ActorAnswer:
        actor = await self._who(codec.decode(payload, ActorRequest))
        return ActorAnswer(admin=actor.name, role=actor.role)

    async def _status(self, payload: bytes) -> FleetStatus:
        return await bot.status(self._context, await self._who(codec.decode(payload, ActorRequest)))

    async def _servers(self, payload: bytes) -> ServerLines:
        actor = await self._who(codec.decode(payload, ActorRequest))
        views, _ = await servers.list_servers(self._context, actor)
        return ServerLines(servers=tuple(bot.line_of(self._context, view) for view in views))

    async def _diff(self, payload: bytes) -> ServerDiff:
        request = codec.decode(payload, ServerRequest)
        actor = await self._who(request)
        return await server_diff(self._context, actor, (await self._find(actor, request.server)).id)

    async def _mode(self, payload: bytes) -> Done:
        request = codec.decode(payload, ModeRequest)
        actor = await self._who(request)
        server = await self._find(actor, request.server)
        await servers.edit_server(self._context, actor, server.id, ServerEdit(mode=request.mode))
        return Done(server=server.slug, text=f"mode is {request.mode}")

    async def _tasks(self, payload: bytes) -> TaskLines:
        request = codec.decode(payload, TasksRequest)
        actor = await self._who(request)
        server_id = (await self._find(actor, request.server)).id if request.server else None
        found = await tasks.list_tasks(
            self._context,
            actor,
            TaskFilter(server_id=server_id, status=request.status),
            page_size=min(max(request.limit, 1), MAX_TASKS),
        )
        names = await self._slugs()
        return TaskLines(tasks=tuple(_line_of(each, names, brief=True) for each in found.rows))

    async def _task(self, payload: bytes) -> TaskLine:
        request = codec.decode(payload, TaskRequest)
        actor = await self._who(request)
        found = await tasks.get_task(self._context, actor, request.task_id)
        if request.wait_s > 0:
            found = next(iter(await tasks.wait_for(self._context, [found.id], request.wait_s)), found)
        return _line_of(found, await self._slugs())

    async def _order(self, payload: bytes) -> TaskLine:
        request = codec.decode(payload, OrderRequest)
        actor = await self._who(request)
        server, verb = await self._find(actor, request.server), get_verb(request.verb)
        body = codec.decode(msgspec.json.encode(request.body), verb.body)
        made = await orders.order(self._context, actor, server.id, verb, body, order_id=request.id)
        return _line_of(made.task, {server.id: server.slug})

    async def _revoke(self, payload: bytes) -> Done:
        request = codec.decode(payload, ServerRequest)
        actor = await self._who(request)
        server = await self._find(actor, request.server)
        done = await fleet.revoke_server(self._context, actor, server.id, request.reason)
        cut = "and its connection is cut" if done.pushed else "the broker hears of it when it is back"
        return Done(server=server.slug, text=f"{done.certificates_count} certificates revoked, {cut}")

    async def _enroll(self, payload: bytes) -> JoinLine:
        request = codec.decode(payload, EnrollOrder)
        actor = await self._who(request)
        authorize(actor, "fleet.enroll")
        if request.server:
            server = await self._find(actor, request.server)
            replaces = server.last_seen_at is not None
        else:
            server = (await servers.create_server(self._context, actor, ServerNew(name=request.name))).view.server
            replaces = False
        made = await joining.make_join_line(self._context, actor, server.id, replaces=replaces)
        return JoinLine(server=server.slug, line=made.line, expires_at_ms=_ms(made.expires_at))

    async def _who(self, request: ActorRequest) -> Actor:
        return await self._who_asks(self._context, request)

    async def _find(self, actor: Actor, name: str) -> Server:
        """By slug, else by name. Raises `NoSuchServer`."""
        authorize(actor, "servers.read")
        query = select(Server).where(or_(Server.slug == name, Server.name == name))
        async with self._context.database.read() as session:
            found = (await session.scalars(query)).all()
        if not found:
            raise NoSuchServer(server=name[:100])
        return next((each for each in found if each.slug == name), found[0])

    async def _slugs(self) -> dict[int, str]:
        async with self._context.database.read() as session:
            return await server_names(session)


def methods_of_bot(context: Context) -> dict[str, Method]:
    """What the bot asks: for the admin of a Telegram account, or to bind one."""

    async def bind(payload: bytes) -> ActorAnswer:
        return await bot.bind(context, codec.decode(payload, BindRequest))

    return {control.BIND: bind, **Methods(context, bot.who_asks).by_name}


def methods_of_cli(context: Context) -> dict[str, Method]:
    """What a command line asks: for the admin of its API token."""
    return Methods(context, bot.who_holds).by_name


def _line_of(task: ServerTask, names: dict[int, str], *, brief: bool = False) -> TaskLine:
    return TaskLine(
        id=task.id,
        server=names.get(task.server_id, ""),
        operation=task.verb or task.operation,
        status=task.status,
        actor=task.actor,
        revision=task.revision,
        created_at_ms=_ms(task.created_at),
        took_ms=task.took_ms,
        trace_id=task.trace_id,
        error=task.error,
        response=None if brief else task.response,
    )


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
