"""`/api/v1/inbounds`."""

from datetime import datetime
from typing import Any

import msgspec
from litestar import Controller, delete, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED

from xfleet_controller.api import Changed, Page, PageOf, PageSize, Search, TaskOut, Wait, waited
from xfleet_controller.edge import TheActor, TheContext
from xfleet_controller.inbounds import service
from xfleet_controller.inbounds.service import InboundEdit, InboundNew, InboundView
from xfleet_controller.servers.api import IfMatch, version_in


class InboundOut(msgspec.Struct, kw_only=True):
    """An inbound; the objects are Xray's own JSON, with what the server generated."""

    id: int
    server_id: int
    remark: str
    listen: str
    port: int
    protocol: str
    network: str
    security: str
    settings: dict[str, Any]
    stream_settings: dict[str, Any]
    sniffing: dict[str, Any]
    enabled: bool
    version: int
    clients_count: int
    up_bytes: int
    down_bytes: int
    created_at: datetime
    updated_at: datetime


class InboundChanged(InboundOut, kw_only=True):
    """An inbound after a change."""

    task_ids: list[int]
    tasks: list[TaskOut]


def inbound_fields(view: InboundView) -> dict[str, Any]:
    """The fields of `InboundOut`."""
    names = (
        "id", "server_id", "remark", "listen", "port", "protocol", "network", "security", "enabled", "version",
        "created_at", "updated_at",
    )  # fmt: skip
    fields = {name: getattr(view.row, name) for name in names}
    fields |= {name: getattr(view.body, name) for name in ("settings", "stream_settings", "sniffing")}
    return fields | {
        "clients_count": view.clients_count,
        "up_bytes": view.totals.up_bytes,
        "down_bytes": view.totals.down_bytes,
    }


class InboundApi(Controller):
    """What Xray listens on."""

    path = "/inbounds"
    tags = ["inbounds"]

    @get(summary="List inbounds")
    async def list_inbounds(
        self,
        context: TheContext,
        actor: TheActor,
        server_id: FromQuery[int | None] = None,
        search: Search = "",
        page: Page = 1,
        page_size: PageSize = 100,
    ) -> PageOf[InboundOut]:
        """In their order."""
        views, total = await service.list_inbounds(
            context, actor, server_id=server_id, search=search, page=page, page_size=page_size
        )
        items = [InboundOut(**inbound_fields(view)) for view in views]
        return PageOf(items=items, total=total, page=page, page_size=page_size)

    @post(status_code=HTTP_201_CREATED, summary="Add an inbound")
    async def create(
        self, context: TheContext, actor: TheActor, data: JSONBody[InboundNew], wait: Wait = 0
    ) -> InboundChanged:
        """What only the server can know is generated when missing."""
        view, task_ids = await service.create_inbound(context, actor, data)
        done = await waited(context, task_ids, wait)
        return InboundChanged(**inbound_fields(view), task_ids=task_ids, tasks=done)

    @get("/{inbound_id:int}", summary="Show an inbound")
    async def show(self, context: TheContext, actor: TheActor, inbound_id: FromPath[int]) -> InboundOut:
        """One inbound."""
        return InboundOut(**inbound_fields(await service.get_inbound(context, actor, inbound_id)))

    @patch("/{inbound_id:int}", summary="Change an inbound")
    async def edit(
        self,
        context: TheContext,
        actor: TheActor,
        inbound_id: FromPath[int],
        data: JSONBody[InboundEdit],
        if_match: IfMatch = "",
        wait: Wait = 0,
    ) -> InboundChanged:
        """What is left out stays; objects are replaced whole."""
        version = version_in(if_match)
        if version is not None and data.version is msgspec.UNSET:
            data = msgspec.structs.replace(data, version=version)
        view, task_ids = await service.edit_inbound(context, actor, inbound_id, data)
        done = await waited(context, task_ids, wait)
        return InboundChanged(**inbound_fields(view), task_ids=task_ids, tasks=done)

    @delete("/{inbound_id:int}", status_code=HTTP_200_OK, summary="Delete an inbound")
    async def remove(self, context: TheContext, actor: TheActor, inbound_id: FromPath[int], wait: Wait = 0) -> Changed:
        """Its clients stay, without it."""
        task_ids = await service.delete_inbound(context, actor, inbound_id)
        return Changed(task_ids=task_ids, tasks=await waited(context, task_ids, wait))
