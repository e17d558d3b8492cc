"""`/api/v1/servers/{id}/diff`, `/history` and `/strays`: desired state at work."""

import msgspec
from litestar import Controller, get, post
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.status_codes import HTTP_200_OK

from xfleet_contracts.control import ServerDiff
from xfleet_controller.api import Changed, Page, PageOf, PageSize, TaskOut, Wait, waited
from xfleet_controller.edge import TheActor, TheContext
from xfleet_controller.servers import adopting, history
from xfleet_controller.servers.adopting import StrayChoice, StrayLine
from xfleet_controller.servers.diff import server_diff
from xfleet_controller.servers.history import LeftOut, RevertOrder, RevertPreview, VersionLine
from xfleet_controller.servers.wording import ConfigChange


class RevertedOut(Changed, kw_only=True):
    """After going back to an earlier configuration."""

    changes: list[ConfigChange]
    left_out: list[LeftOut]


class StraysDecided(msgspec.Struct, kw_only=True):
    """After a decision about strays."""

    count: int
    task_ids: list[int]
    tasks: list[TaskOut]


class ServerStateApi(Controller):
    """What a server should run, what it was told before, and what only it knows."""

    path = "/servers/{server_id:int}"
    tags = ["servers"]

    @get("/diff", summary="Show what a server should run and does not")
    async def diff(self, context: TheContext, actor: TheActor, server_id: FromPath[int]) -> ServerDiff:
        """Changes on their way, refused entities with the culprit's path, strays."""
        return await server_diff(context, actor, server_id)

    @get("/history", summary="List the versions of a server's configuration")
    async def versions(
        self, context: TheContext, actor: TheActor, server_id: FromPath[int], page: Page = 1, page_size: PageSize = 50
    ) -> PageOf[VersionLine]:
        """Newest first, each with what it changed; without clients and secrets."""
        lines, total = await history.list_versions(context, actor, server_id, page=page, page_size=page_size)
        return PageOf(items=lines, total=total, page=page, page_size=page_size)

    @get("/history/{version:int}/changes", summary="Compare a version with another one or with now")
    async def changes(
        self,
        context: TheContext,
        actor: TheActor,
        server_id: FromPath[int],
        version: FromPath[int],
        other: FromQuery[int | None] = None,
    ) -> list[ConfigChange]:
        """What leads from the version to the other one; without `other` to how things are now."""
        return list(await history.compare_versions(context, actor, server_id, version, other))

    @get("/history/{version:int}/revert", summary="Show what going back would do")
    async def preview(
        self, context: TheContext, actor: TheActor, server_id: FromPath[int], version: FromPath[int]
    ) -> RevertPreview:
        """Nothing is changed."""
        return await history.preview_revert(context, actor, server_id, version)

    @post("/history/{version:int}/revert", status_code=HTTP_200_OK, summary="Go back to a version")
    async def revert(
        self,
        context: TheContext,
        actor: TheActor,
        server_id: FromPath[int],
        version: FromPath[int],
        data: JSONBody[RevertOrder],
        wait: Wait = 0,
    ) -> RevertedOut:
        """One new revision of configuration; clients and secrets stay as they are now."""
        done = await history.revert(context, actor, server_id, version, data)
        return RevertedOut(
            changes=list(done.changes),
            left_out=list(done.left_out),
            task_ids=done.task_ids,
            tasks=await waited(context, done.task_ids, wait),
        )

    @get("/strays", summary="List what only the server knows")
    async def strays(self, context: TheContext, actor: TheActor, server_id: FromPath[int]) -> list[StrayLine]:
        """Found when an agent met a restored database; it all runs on until somebody decides."""
        return list(await adopting.list_stray_lines(context, actor, server_id))

    @post("/strays/adopt", status_code=HTTP_200_OK, summary="Adopt strays")
    async def adopt(
        self,
        context: TheContext,
        actor: TheActor,
        server_id: FromPath[int],
        data: JSONBody[StrayChoice],
        wait: Wait = 0,
    ) -> StraysDecided:
        """Inbounds and clients under the same refs, keys and credentials; no connection notices."""
        done = await adopting.adopt(context, actor, server_id, data)
        tasks = await waited(context, done.task_ids, wait)
        return StraysDecided(count=done.count, task_ids=done.task_ids, tasks=tasks)

    @post("/strays/discard", status_code=HTTP_200_OK, summary="Discard strays")
    async def discard(
        self,
        context: TheContext,
        actor: TheActor,
        server_id: FromPath[int],
        data: JSONBody[StrayChoice],
        wait: Wait = 0,
    ) -> StraysDecided:
        """They leave the server; an inbound goes with its clients."""
        done = await adopting.discard(context, actor, server_id, data)
        tasks = await waited(context, done.task_ids, wait)
        return StraysDecided(count=done.count, task_ids=done.task_ids, tasks=tasks)
