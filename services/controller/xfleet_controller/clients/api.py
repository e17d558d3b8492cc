"""`/api/v1/clients`."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, delete, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED

from xfleet_controller.api import Changed, Page, PageOf, PageSize, Search, TaskOut, Wait, waited
from xfleet_controller.clients import service
from xfleet_controller.clients.service import ClientEdit, ClientNew, ClientView
from xfleet_controller.edge import TheActor, TheContext, public_base
from xfleet_controller.servers.api import IfMatch, version_in
from xfleet_controller.subscriptions.links import subscription_path

StateFilter = Annotated[str, QueryParameter(name="state", description="One of the states.")]


class ClientOut(msgspec.Struct, kw_only=True):
    """A person or device that is sold access."""

    id: int
    name: str
    sub_id: str
    subscription_url: str
    links: list[str]
    """Empty, with `sub_id` and `subscription_url`, for who may not see links."""
    inbound_ids: list[int]
    enabled: bool
    state: str
    """active, expiring, depleted, expired or disabled."""
    online: bool
    total_bytes: int | None
    """Quota, up and down together; null: unlimited."""
    expires_at: datetime | None
    comment: str
    up_bytes: int
    """Since the last reset, as the client sees it."""
    down_bytes: int
    all_time_up_bytes: int
    all_time_down_bytes: int
    last_online_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime


class ClientChanged(ClientOut, kw_only=True):
    """A client after a change."""

    task_ids: list[int]
    tasks: list[TaskOut]


def client_fields(view: ClientView, base: str) -> dict[str, Any]:
    """The fields of `ClientOut`."""
    names = (
        "id", "name", "enabled", "total_bytes", "expires_at", "comment", "version", "created_at",
        "updated_at",
    )  # fmt: skip
    fields = {name: getattr(view.row, name) for name in names}
    return fields | {
        "sub_id": view.row.sub_id if view.links_shown else "",
        "subscription_url": f"{base}{subscription_path(view.row.sub_id)}" if view.links_shown else "",
        "links": [link.url for link in view.links],
        "inbound_ids": list(view.inbound_ids),
        "state": view.state,
        "online": view.online,
        "up_bytes": view.usage.up_bytes,
        "down_bytes": view.usage.down_bytes,
        "all_time_up_bytes": view.usage.all_time_up_bytes,
        "all_time_down_bytes": view.usage.all_time_down_bytes,
        "last_online_at": view.usage.last_online_at,
    }


class ClientApi(Controller):
    """Who is sold access."""

    path = "/clients"
    tags = ["clients"]

    @get(summary="List clients")
    async def list_clients(
        self,
        request: Request[Any, Any, Any],
        context: TheContext,
        actor: TheActor,
        search: Search = "",
        client_state: StateFilter = "",
        inbound_id: FromQuery[int | None] = None,
        server_id: FromQuery[int | None] = None,
        sort: FromQuery[str] = "",
        page: Page = 1,
        page_size: PageSize = 25,
    ) -> PageOf[ClientOut]:
        """`state` filters; `sort` is id, name, created_at, expires_at or used, with `-` in front to turn it round."""
        views, total = await service.list_clients(
            context,
            actor,
            search=search,
            state=client_state,
            inbound_id=inbound_id,
            server_id=server_id,
            sort=sort,
            page=page,
            page_size=page_size,
        )
        base = public_base(request, context)
        items = [ClientOut(**client_fields(view, base)) for view in views]
        return PageOf(items=items, total=total, page=page, page_size=page_size)

    @post(status_code=HTTP_201_CREATED, summary="Add a client")
    async def create(
        self,
        request: Request[Any, Any, Any],
        context: TheContext,
        actor: TheActor,
        data: JSONBody[ClientNew],
        wait: Wait = 0,
    ) -> ClientChanged:
        """With fresh credentials on every inbound named."""
        view, task_ids = await service.create_client(context, actor, data)
        done = await waited(context, task_ids, wait)
        return ClientChanged(**client_fields(view, public_base(request, context)), task_ids=task_ids, tasks=done)

    @get("/{client_id:int}", summary="Show a client")
    async def show(
        self, request: Request[Any, Any, Any], context: TheContext, actor: TheActor, client_id: FromPath[int]
    ) -> ClientOut:
        """One client with its links."""
        view = await service.get_client(context, actor, client_id)
        return ClientOut(**client_fields(view, public_base(request, context)))

    @patch("/{client_id:int}", summary="Change a client")
    async def edit(
        self,
        request: Request[Any, Any, Any],
        context: TheContext,
        actor: TheActor,
        client_id: FromPath[int],
        data: JSONBody[ClientEdit],
        if_match: IfMatch = "",
        wait: Wait = 0,
    ) -> ClientChanged:
        """What is left out stays."""
        version = version_in(if_match)
        if version is not None and data.version is msgspec.UNSET:
            data = msgspec.structs.replace(data, version=version)
        view, task_ids = await service.edit_client(context, actor, client_id, data)
        done = await waited(context, task_ids, wait)
        return ClientChanged(**client_fields(view, public_base(request, context)), task_ids=task_ids, tasks=done)

    @delete("/{client_id:int}", status_code=HTTP_200_OK, summary="Delete a client")
    async def remove(self, context: TheContext, actor: TheActor, client_id: FromPath[int], wait: Wait = 0) -> Changed:
        """Everywhere; its totals stay in the ledger."""
        task_ids = await service.delete_client(context, actor, client_id)
        return Changed(task_ids=task_ids, tasks=await waited(context, task_ids, wait))
