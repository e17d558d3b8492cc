"""`/api/v1/servers`."""

from datetime import datetime

import msgspec
from litestar import Controller, delete, get, patch, post
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_201_CREATED, HTTP_204_NO_CONTENT

from xfleet_controller.api import Page, PageOf, PageSize, Search, TaskOut, Wait, waited
from xfleet_controller.context import Context
from xfleet_controller.edge import TheActor, TheContext
from xfleet_controller.servers import service
from xfleet_controller.servers.service import ServerEdit, ServerNew, ServerView


class ServerOut(msgspec.Struct, kw_only=True):
    """A managed VPN server."""

    id: int
    slug: str
    name: str
    status: str
    """pending, online, stale, offline."""
    public_address: str
    reported_address: str
    region: str
    notes: str
    tags: list[str]
    allow_private_destinations: bool
    desired_revision: int
    applied_revision: int
    degraded_count: int
    agent_version: str
    xray_version: str
    last_seen_at: datetime | None
    last_error: str
    created_at: datetime


class ServerChanged(ServerOut, kw_only=True):
    """A server after a change."""

    task_ids: list[int]
    tasks: list[TaskOut]


class EnrollmentOut(msgspec.Struct, kw_only=True):
    """The line an agent enrolls with, once."""

    enrollment_token: str


class ServerCreated(ServerOut, kw_only=True):
    """A new server and the line its agent enrolls with."""

    enrollment_token: str


def server_fields(context: Context, view: ServerView) -> dict[str, object]:
    """The fields of `ServerOut`."""
    row, seen = view.server, context.presence.get(view.server.slug)
    names = (
        "id", "slug", "name", "public_address", "reported_address", "region", "notes", "tags",
        "allow_private_destinations", "agent_version", "xray_version", "last_seen_at", "last_error", "created_at",
    )  # fmt: skip
    fields: dict[str, object] = {name: getattr(row, name) for name in names}
    fields |= {
        "status": view.status,
        "desired_revision": view.revision.desired_revision,
        "applied_revision": view.revision.applied_revision,
        "degraded_count": len(view.revision.degraded),
    }
    if seen is not None:
        fields["last_seen_at"] = datetime.fromtimestamp(seen.received_at_ms / 1000, tz=row.created_at.tzinfo)
        fields["xray_version"] = seen.beat.xray.version or row.xray_version
        fields["agent_version"] = seen.beat.agent_version or row.agent_version
        fields["applied_revision"] = max(seen.beat.applied_revision, view.revision.applied_revision)
    return fields


class ServerApi(Controller):
    """Managed VPN servers."""

    path = "/servers"
    tags = ["servers"]

    @get(summary="List servers")
    async def list_servers(
        self, context: TheContext, actor: TheActor, search: Search = "", page: Page = 1, page_size: PageSize = 100
    ) -> PageOf[ServerOut]:
        """By id."""
        views, total = await service.list_servers(context, actor, search=search, page=page, page_size=page_size)
        items = [ServerOut(**server_fields(context, view)) for view in views]  # type: ignore[arg-type]
        return PageOf(items=items, total=total, page=page, page_size=page_size)

    @post(status_code=HTTP_201_CREATED, summary="Add a server")
    async def create(self, context: TheContext, actor: TheActor, data: JSONBody[ServerNew]) -> ServerCreated:
        """A server waiting for its agent, with the line that enrolls it."""
        made = await service.create_server(context, actor, data)
        return ServerCreated(**server_fields(context, made.view), enrollment_token=made.token)  # type: ignore[arg-type]

    @get("/{server_id:int}", summary="Show a server")
    async def show(self, context: TheContext, actor: TheActor, server_id: FromPath[int]) -> ServerOut:
        """One server."""
        view = await service.get_server(context, actor, server_id)
        return ServerOut(**server_fields(context, view))  # type: ignore[arg-type]

    @patch("/{server_id:int}", summary="Change a server")
    async def edit(
        self, context: TheContext, actor: TheActor, server_id: FromPath[int], data: JSONBody[ServerEdit], wait: Wait = 0
    ) -> ServerChanged:
        """What is left out stays."""
        view, task_ids = await service.edit_server(context, actor, server_id, data)
        done = await waited(context, task_ids, wait)
        if done:
            view = await service.get_server(context, actor, server_id)
        return ServerChanged(**server_fields(context, view), task_ids=task_ids, tasks=done)  # type: ignore[arg-type]

    @delete("/{server_id:int}", status_code=HTTP_204_NO_CONTENT, summary="Delete a server")
    async def remove(self, context: TheContext, actor: TheActor, server_id: FromPath[int]) -> None:
        """Revokes its keys at once; its inbounds must be gone."""
        await service.delete_server(context, actor, server_id)

    @post("/{server_id:int}/enrollment-tokens", summary="Make an enrollment token")
    async def make_token(self, context: TheContext, actor: TheActor, server_id: FromPath[int]) -> EnrollmentOut:
        """Valid once, for 15 minutes; using it revokes the server's older identity."""
        return EnrollmentOut(enrollment_token=await service.make_enrollment(context, actor, server_id))
