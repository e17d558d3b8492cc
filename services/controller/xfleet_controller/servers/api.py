"""`/api/v1/servers`."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Controller, delete, get, patch, post
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody, QueryParameter
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED
from msgspec import UNSET

from xfleet_controller.api import Page, PageOf, PageSize, Search, TaskOut, Wait, waited
from xfleet_controller.context import Context
from xfleet_controller.edge import TheActor, TheContext
from xfleet_controller.errors import invalid
from xfleet_controller.servers import removal, service
from xfleet_controller.servers.condition import REASONS
from xfleet_controller.servers.figures import Latest, latest_of, problems
from xfleet_controller.servers.service import ServerEdit, ServerNew, ServerView

IfMatch = Annotated[str, HeaderParameter(name="If-Match", description='The `version` as read, such as `"3"`.')]
WithInbounds = Annotated[bool, QueryParameter(name="with_inbounds", description="Its inbounds go with it.")]
Force = Annotated[bool, QueryParameter(description="At once, though its agent could not take anything down.")]
Mode = Annotated[str, QueryParameter(description="A status, or drain, maintenance, disabled, retiring.")]


class ProblemOut(msgspec.Struct, kw_only=True):
    """Something about a server that a person should look at."""

    code: str
    tone: str
    """danger or warning."""
    text: str


class FiguresOut(msgspec.Struct, kw_only=True):
    """What the agent last told about its machine."""

    at: datetime
    live: bool
    """False: the last known, from before it fell silent."""
    cpu_percent: float
    cpu_count: int
    load_1m: float
    memory_used_bytes: int
    memory_total_bytes: int
    swap_used_bytes: int
    swap_total_bytes: int
    disk_used_bytes: int
    disk_total_bytes: int
    network_up_bytes_s: int
    network_down_bytes_s: int
    tcp_connections_count: int
    clients_online_count: int
    cuts_count: int
    spool_batches_count: int
    xray_status: str
    xray_restarts_count: int
    xray_started_at: datetime | None
    agent_started_at: datetime | None
    host_started_at: datetime | None
    link: str
    """The broker address it speaks through."""


class ServerOut(msgspec.Struct, kw_only=True):
    """A managed VPN server."""

    id: int
    slug: str
    name: str
    status: str
    """pending, online, stale, offline."""
    reason: str
    """Why it is not online: never_joined, revoked, credentials_expired, broker_unreachable, no_sign_of_life."""
    reason_text: str
    enabled: bool
    mode: str
    """active, drain, maintenance."""
    retiring_at: datetime | None
    """Since when it is being deleted."""
    public_address: str
    reported_address: str
    region: str
    notes: str
    tags: list[str]
    allow_private_destinations: bool
    version: int
    desired_revision: int
    applied_revision: int
    degraded_count: int
    drift_at: datetime | None
    """When Xray last ran something else than it should, and was mended."""
    agent_version: str
    xray_version: str
    os_info: dict[str, Any]
    clock_offset_ms: int | None
    credentials_expire_at: datetime | None
    last_seen_at: datetime | None
    last_error: str
    problems: list[ProblemOut]
    created_at: datetime
    updated_at: datetime


class ServerDetail(ServerOut, kw_only=True):
    """A server with everything that is known."""

    wanted_revision: int
    """What its agent holds."""
    degraded: list[Any]
    """Entities it could not apply: key, path, code, reason, and whether an older version is kept."""
    figures: FiguresOut | None
    replaced: Any
    """What became of the last replacement of its machine."""


class ServerChanged(ServerOut, kw_only=True):
    """A server after a change."""

    task_ids: list[int]
    tasks: list[TaskOut]


class ServerDeleted(msgspec.Struct, kw_only=True):
    """What became of a deletion."""

    state: str
    """retiring (until its agent took everything down) or deleted."""
    task_ids: list[int]
    warning: str
    """What may keep running."""


class EnrollmentOut(msgspec.Struct, kw_only=True):
    """The line an agent enrolls with, once."""

    enrollment_token: str


class ServerCreated(ServerOut, kw_only=True):
    """A new server and the line its agent enrolls with."""

    enrollment_token: str


class Choices(msgspec.Struct, kw_only=True):
    """What the servers can be told apart by."""

    regions: list[str]
    tags: list[str]


def server_fields(context: Context, view: ServerView) -> dict[str, Any]:
    """The fields of `ServerOut`."""
    row, latest = view.server, latest_of(view, context.presence)
    names = (
        "id", "slug", "name", "enabled", "mode", "retiring_at", "public_address", "reported_address", "region", "notes",
        "tags", "allow_private_destinations", "version", "drift_at", "agent_version", "xray_version", "os_info",
        "clock_offset_ms", "credentials_expire_at", "last_seen_at", "last_error", "created_at", "updated_at",
    )  # fmt: skip
    fields: dict[str, Any] = {name: getattr(row, name) for name in names}
    found = problems(view, latest, context.clock.now())
    fields |= {
        "status": view.status,
        "reason": view.reason,
        "reason_text": REASONS.get(view.reason, ""),
        "desired_revision": view.revision.desired_revision,
        "applied_revision": view.revision.applied_revision,
        "degraded_count": len(view.revision.degraded),
        "problems": [ProblemOut(**each._asdict()) for each in found],
    }
    if latest is not None:
        fields["last_seen_at"] = latest.at
        fields["xray_version"] = latest.beat.xray.version or row.xray_version
        fields["agent_version"] = latest.beat.agent_version or row.agent_version
        fields["applied_revision"] = max(latest.beat.applied_revision, view.revision.applied_revision)
    return fields


def detail_fields(context: Context, view: ServerView) -> dict[str, Any]:
    """The fields of `ServerDetail`."""
    latest = latest_of(view, context.presence)
    return server_fields(context, view) | {
        "wanted_revision": view.revision.wanted_revision,
        "degraded": view.revision.degraded,
        "figures": None if latest is None else _figures(latest),
        "replaced": view.server.replaced,
    }


def _figures(latest: Latest) -> FiguresOut:
    beat, host = latest.beat, latest.beat.host
    names = (
        "cpu_percent", "cpu_count", "load_1m", "memory_used_bytes", "memory_total_bytes", "swap_used_bytes",
        "swap_total_bytes", "disk_used_bytes", "disk_total_bytes", "network_up_bytes_s", "network_down_bytes_s",
        "tcp_connections_count",
    )  # fmt: skip
    return FiguresOut(
        at=latest.at,
        live=latest.live,
        **{name: getattr(host, name) for name in names},
        clients_online_count=beat.online_count,
        cuts_count=beat.cuts_count,
        spool_batches_count=beat.spool.sealed_batches_count,
        xray_status=beat.xray.status,
        xray_restarts_count=beat.xray.restarts_count,
        xray_started_at=latest.since(beat.xray.uptime_s),
        agent_started_at=latest.since(beat.agent_uptime_s),
        host_started_at=latest.since(host.uptime_s),
        link=beat.link,
    )


def version_in(header: str) -> int | None:
    """The version in an `If-Match` header; None without one. Raises `Invalid` for anything but a number."""
    text = header.strip().removeprefix("W/").strip('"')
    if not text or text == "*":
        return None
    if not text.isdecimal() or len(text) > len(str(2**31)):
        raise invalid("If-Match", "Give the version as read, a number.")
    return int(text)


class ServerApi(Controller):
    """Managed VPN servers."""

    path = "/servers"
    tags = ["servers"]

    @get(summary="List servers")
    async def list_servers(
        self,
        context: TheContext,
        actor: TheActor,
        search: Search = "",
        tag: FromQuery[str] = "",
        region: FromQuery[str] = "",
        status: Mode = "",
        page: Page = 1,
        page_size: PageSize = 100,
    ) -> PageOf[ServerOut]:
        """By id."""
        views, total = await service.list_servers(
            context, actor, search=search, tag=tag, region=region, status=status, page=page, page_size=page_size
        )
        items = [ServerOut(**server_fields(context, view)) for view in views]
        return PageOf(items=items, total=total, page=page, page_size=page_size)

    @get("/choices", summary="List regions and tags")
    async def choices(self, context: TheContext, actor: TheActor) -> Choices:
        """Every region and tag in use."""
        regions, tags = await service.list_choices(context, actor)
        return Choices(regions=regions, tags=tags)

    @post(status_code=HTTP_201_CREATED, summary="Add a server")
    async def create(self, context: TheContext, actor: TheActor, data: JSONBody[ServerNew]) -> ServerCreated:
        """A server waiting for its agent, with the line that enrolls it."""
        made = await service.create_server(context, actor, data)
        return ServerCreated(**server_fields(context, made.view), enrollment_token=made.token)

    @get("/{server_id:int}", summary="Show a server")
    async def show(self, context: TheContext, actor: TheActor, server_id: FromPath[int]) -> ServerDetail:
        """One server with everything that is known."""
        return ServerDetail(**detail_fields(context, await service.get_server(context, actor, server_id)))

    @patch("/{server_id:int}", summary="Change a server")
    async def edit(
        self,
        context: TheContext,
        actor: TheActor,
        server_id: FromPath[int],
        data: JSONBody[ServerEdit],
        if_match: IfMatch = "",
        wait: Wait = 0,
    ) -> ServerChanged:
        """What is left out stays. With `version` or `If-Match`, a change in between is refused: `edited_meanwhile`."""
        version = version_in(if_match)
        if version is not None and data.version is UNSET:
            data = msgspec.structs.replace(data, version=version)
        view, task_ids = await service.edit_server(context, actor, server_id, data)
        done = await waited(context, task_ids, wait)
        if done:
            view = await service.get_server(context, actor, server_id)
        return ServerChanged(**server_fields(context, view), task_ids=task_ids, tasks=done)

    @delete("/{server_id:int}", status_code=HTTP_200_OK, summary="Delete a server")
    async def remove(
        self,
        context: TheContext,
        actor: TheActor,
        server_id: FromPath[int],
        force: Force = False,
        with_inbounds: WithInbounds = False,
    ) -> ServerDeleted:
        """Retiring until its agent has taken everything down and told its last bytes; by force it is gone at once."""
        done = await removal.delete_server(context, actor, server_id, force=force, with_inbounds=with_inbounds)
        return ServerDeleted(**done._asdict())

    @post("/{server_id:int}/enrollment-tokens", summary="Make an enrollment token")
    async def make_token(self, context: TheContext, actor: TheActor, server_id: FromPath[int]) -> EnrollmentOut:
        """Valid once, for 15 minutes; using it revokes the server's older identity."""
        return EnrollmentOut(enrollment_token=await service.make_enrollment(context, actor, server_id))
