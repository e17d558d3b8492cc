"""`/api/v1/servers/{id}/…`: everything one server can be asked or told.

Reads are answered by the server at once. Changes are tasks: 202 with the task, `?wait=` waits for its end.
"""

import hashlib
from collections.abc import AsyncIterator
from typing import Annotated, Any, BinaryIO

import msgspec
from litestar import Controller, Request, get, post
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.response import Stream
from litestar.status_codes import HTTP_200_OK, HTTP_202_ACCEPTED

from xfleet_contracts.care import (
    MAX_BLOB_BYTES,
    CertificateGenerate,
    CertificateList,
    CertificateName,
    CertificatePem,
    ChecksDone,
    ChecksRun,
    Restored,
    StateRead,
)
from xfleet_contracts.commands import (
    AgentHealth,
    AgentInfo,
    Nothing,
    OnlineClients,
    SystemStats,
    TrafficRead,
    TrafficReading,
    XrayVersion,
)
from xfleet_contracts.desired_state import StatePoint
from xfleet_contracts.installs import AgentUpdate, GeoFilesUpdate, XrayInstall
from xfleet_controller.api import TaskOut, Wait, task_out
from xfleet_controller.auth.rights import Actor, authorize
from xfleet_controller.context import Context
from xfleet_controller.edge import TheActor, TheContext
from xfleet_controller.errors import BusUnavailable
from xfleet_controller.orders import service, verbs
from xfleet_controller.orders.answers import shown
from xfleet_controller.orders.connector import Backup
from xfleet_controller.orders.verbs import Verb
from xfleet_controller.servers.models import Server
from xfleet_controller.tasks import service as tasks

CHUNK_BYTES = 256 * 1024
ARCHIVE = "application/gzip"
OFFLINE_NOTE = "The server is offline. The order waits for it until the deadline, then it expires."
NOTHING = Nothing()
OrderId = Annotated[
    str, QueryParameter(max_length=64, description="Chosen by you: the same id is the same order, however often sent.")
]
Offset = Annotated[int, QueryParameter(ge=0, description="Rows to skip.")]
Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="Rows at most.")]


class OrderOut(msgspec.Struct, kw_only=True):
    """An order that was given."""

    task_id: int
    task: TaskOut
    joined: bool
    """The same order was already waiting: this is that one."""
    online: bool
    """Whether the server is heard now."""
    note: str


class ConfigOut(msgspec.Struct, kw_only=True):
    """What Xray runs, without secrets."""

    config: Any


class EntityOut(msgspec.Struct, kw_only=True):
    """One entity of a desired state; its body holds secrets and is not shown."""

    kind: str
    id: str
    sha256: str
    size_bytes: int


class StateOut(msgspec.Struct, kw_only=True):
    """A page of the desired state as the agent holds it."""

    point: StatePoint
    entities: list[EntityOut]
    total_count: int


class OrderApi(Controller):
    """Reads and orders, per server."""

    path = "/servers/{server_id:int}"
    tags = ["orders"]

    @get("/info", summary="Ask what a server is")
    async def info(self, context: TheContext, actor: TheActor, server_id: FromPath[int]) -> AgentInfo:
        """Versions, machine, revisions."""
        return await service.read(context, actor, server_id, verbs.INFO, NOTHING)

    @get("/health", summary="Ask how a server is")
    async def health(self, context: TheContext, actor: TheActor, server_id: FromPath[int]) -> AgentHealth:
        """One word per check."""
        return await service.read(context, actor, server_id, verbs.HEALTH, NOTHING)

    @get("/stats", summary="Ask for figures of machine, agent and Xray")
    async def stats(self, context: TheContext, actor: TheActor, server_id: FromPath[int]) -> SystemStats:
        """As of now; the server list has those of the last heartbeat."""
        return await service.read(context, actor, server_id, verbs.SYSTEM_STATS, NOTHING)

    @get("/online", summary="Ask who is online on a server")
    async def online(self, context: TheContext, actor: TheActor, server_id: FromPath[int]) -> OnlineClients:
        """Refs of clients with an open stream."""
        return await service.read(context, actor, server_id, verbs.CLIENTS_ONLINE, NOTHING)

    @get("/counters", summary="Read Xray's own counters")
    async def counters(
        self, context: TheContext, actor: TheActor, server_id: FromPath[int], offset: Offset = 0, limit: Limit = 1000
    ) -> TrafficReading:
        """Since this Xray started; billing goes by the ledger, not by this."""
        body = TrafficRead(offset=offset, limit=limit)
        return await service.read(context, actor, server_id, verbs.TRAFFIC_READ, body)

    @get("/state", summary="Read the desired state the agent holds")
    async def state(
        self, context: TheContext, actor: TheActor, server_id: FromPath[int], offset: Offset = 0
    ) -> StateOut:
        """As many entities as fit into one answer."""
        held = await service.read(context, actor, server_id, verbs.STATE_READ, StateRead(offset=offset))
        entities = [
            EntityOut(
                kind=each.kind,
                id=each.id,
                sha256=hashlib.sha256(bytes(each.body)).hexdigest(),
                size_bytes=len(bytes(each.body)),
            )
            for each in held.entities
        ]
        return StateOut(point=held.point, entities=entities, total_count=held.total_count)

    @post("/checks", status_code=HTTP_200_OK, summary="Try things from a server")
    async def checks(
        self, context: TheContext, actor: TheActor, server_id: FromPath[int], data: JSONBody[ChecksRun]
    ) -> ChecksDone:
        """Its own health, TLS targets for Reality, free ports."""
        return await service.read(context, actor, server_id, verbs.CHECKS_RUN, data)

    @get("/xray", summary="Ask which Xray runs")
    async def xray(self, context: TheContext, actor: TheActor, server_id: FromPath[int]) -> XrayVersion:
        """Version and start."""
        return await service.read(context, actor, server_id, verbs.XRAY_VERSION, NOTHING)

    @get("/xray/config", summary="Read the running configuration")
    async def config(self, context: TheContext, actor: TheActor, server_id: FromPath[int]) -> ConfigOut:
        """Without secrets."""
        held = await service.read(context, actor, server_id, verbs.XRAY_CONFIG, NOTHING)
        return ConfigOut(config=shown(held.config))

    @post("/xray/start", status_code=HTTP_202_ACCEPTED, summary="Start Xray")
    async def start(
        self, context: TheContext, actor: TheActor, server_id: FromPath[int], wait: Wait = 0, order_id: OrderId = ""
    ) -> OrderOut:
        """Also one that was stopped by order."""
        return await _ordered(context, actor, server_id, verbs.XRAY_START, NOTHING, wait, order_id)

    @post("/xray/stop", status_code=HTTP_202_ACCEPTED, summary="Stop Xray")
    async def stop(
        self, context: TheContext, actor: TheActor, server_id: FromPath[int], wait: Wait = 0, order_id: OrderId = ""
    ) -> OrderOut:
        """It stays stopped until it is started by order."""
        return await _ordered(context, actor, server_id, verbs.XRAY_STOP, NOTHING, wait, order_id)

    @post("/xray/restart", status_code=HTTP_202_ACCEPTED, summary="Restart Xray")
    async def restart(
        self, context: TheContext, actor: TheActor, server_id: FromPath[int], wait: Wait = 0, order_id: OrderId = ""
    ) -> OrderOut:
        """Open connections end."""
        return await _ordered(context, actor, server_id, verbs.XRAY_RESTART, NOTHING, wait, order_id)

    @post("/xray/install", status_code=HTTP_202_ACCEPTED, summary="Install another Xray")
    async def install(
        self,
        context: TheContext,
        actor: TheActor,
        server_id: FromPath[int],
        data: JSONBody[XrayInstall],
        wait: Wait = 0,
        order_id: OrderId = "",
    ) -> OrderOut:
        """An official release archive from any mirror, by its SHA-256; or back to one that is there, or `bundled`."""
        return await _ordered(context, actor, server_id, verbs.XRAY_INSTALL, data, wait, order_id)

    @post("/geofiles", status_code=HTTP_202_ACCEPTED, summary="Update geo files")
    async def geofiles(
        self,
        context: TheContext,
        actor: TheActor,
        server_id: FromPath[int],
        data: JSONBody[GeoFilesUpdate],
        wait: Wait = 0,
        order_id: OrderId = "",
    ) -> OrderOut:
        """From any mirror, by their SHA-256."""
        return await _ordered(context, actor, server_id, verbs.GEOFILES_UPDATE, data, wait, order_id)

    @post("/agent/update", status_code=HTTP_202_ACCEPTED, summary="Upgrade the agent")
    async def update(
        self,
        context: TheContext,
        actor: TheActor,
        server_id: FromPath[int],
        data: JSONBody[AgentUpdate],
        wait: Wait = 0,
        order_id: OrderId = "",
    ) -> OrderOut:
        """No connection drops; the old agent is back when the new one does not connect."""
        return await _ordered(context, actor, server_id, verbs.AGENT_UPDATE, data, wait, order_id)

    @get("/certificates", summary="List a server's domain certificates")
    async def certificates(self, context: TheContext, actor: TheActor, server_id: FromPath[int]) -> CertificateList:
        """Those on its disk."""
        return await service.read(context, actor, server_id, verbs.CERTS_LIST, NOTHING)

    @post("/certificates", status_code=HTTP_202_ACCEPTED, summary="Make a self-signed certificate on a server")
    async def generate(
        self,
        context: TheContext,
        actor: TheActor,
        server_id: FromPath[int],
        data: JSONBody[CertificateGenerate],
        wait: Wait = 0,
        order_id: OrderId = "",
    ) -> OrderOut:
        """Its key never leaves the server."""
        return await _ordered(context, actor, server_id, verbs.CERTS_GENERATE, data, wait, order_id)

    @get("/certificates/{name:str}", summary="Show a certificate")
    async def certificate(
        self, context: TheContext, actor: TheActor, server_id: FromPath[int], name: FromPath[str]
    ) -> CertificatePem:
        """Never its key."""
        return await service.read(context, actor, server_id, verbs.CERTS_GET, CertificateName(name=name))

    @post("/backup", status_code=HTTP_200_OK, summary="Fetch a backup of what only a server has", media_type=ARCHIVE)
    async def backup(self, context: TheContext, actor: TheActor, server_id: FromPath[int]) -> Stream:
        """Domain certificates, geo files and settings, as a tar.gz; desired state is the controller's."""
        server, made = await service.backup(context, actor, server_id)
        return download(context, server, made)

    @post(
        "/restore",
        status_code=HTTP_200_OK,
        summary="Put a backup back",
        request_max_body_size=MAX_BLOB_BYTES,
    )
    async def restore(
        self, context: TheContext, actor: TheActor, server_id: FromPath[int], request: Request[Any, Any, Any]
    ) -> Restored:
        """The body is the archive itself."""
        authorize(actor, verbs.RESTORE.action)
        if context.transfers is None:
            raise BusUnavailable
        with context.transfers.new_file() as file:
            async for chunk in request.stream():
                file.write(chunk)
            return await service.restore(context, actor, server_id, file)


def download(context: Context, server: Server, made: Backup) -> Stream:
    """An archive as a file for a browser."""
    name = f"xfleet-{server.slug}-{context.clock.now():%Y%m%d-%H%M}.tar.gz"
    headers = {
        "content-disposition": f'attachment; filename="{name}"',
        "content-length": str(made.sent.size_bytes),
        "cache-control": "no-store",
    }
    return Stream(_chunks(made.file), media_type=ARCHIVE, headers=headers)


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


async def _ordered(
    context: Context, actor: Actor, server_id: int, verb: Verb[Any, Any], body: Any, wait_s: float, order_id: str
) -> OrderOut:
    given = await service.order(context, actor, server_id, verb, body, order_id=order_id)
    task = given.task
    if wait_s:
        (task,) = await tasks.wait_for(context, [task.id], wait_s) or [task]
    note = "" if given.online or task.completed_at is not None else OFFLINE_NOTE
    return OrderOut(task_id=task.id, task=task_out(task), joined=given.joined, online=given.online, note=note)
