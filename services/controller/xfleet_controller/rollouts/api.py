"""`/api/v1/rollouts`."""

from datetime import datetime
from typing import Any

import msgspec
from litestar import Controller, get, post
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED

from xfleet_controller.api import Page, PageOf, PageSize
from xfleet_controller.edge import TheActor, TheContext
from xfleet_controller.rollouts import service
from xfleet_controller.rollouts.service import RolloutNew, RolloutView


class RolloutServerOut(msgspec.Struct, kw_only=True):
    """One server of a rollout."""

    server_id: int
    name: str
    wave: int
    status: str
    """waiting, running, watching, healthy, failed or skipped."""
    task_id: int | None
    version_before: str
    error: str
    started_at: datetime | None
    completed_at: datetime | None


class RolloutOut(msgspec.Struct, kw_only=True):
    """An upgrade of many servers in waves."""

    id: int
    verb: str
    status: str
    """running, paused, completed or cancelled."""
    error: str
    """Why it paused, or what was left out."""
    order: Any
    waves: list[str]
    watch_s: int
    counts: dict[str, int]
    """Servers by status."""
    actor: str
    trace_id: str
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None


class RolloutDetailOut(RolloutOut, kw_only=True):
    """A rollout with its servers."""

    servers: list[RolloutServerOut]


def rollout_out(view: RolloutView) -> RolloutOut:
    """A rollout as the API lists it."""
    row, plan = view.rollout, view.plan
    return RolloutOut(
        id=row.id,
        verb=row.verb,
        status=row.status,
        error=row.error,
        order=plan.order,
        waves=plan.waves,
        watch_s=plan.watch_s,
        counts=view.counts,
        actor=row.actor,
        trace_id=plan.trace_id,
        created_at=row.created_at,
        updated_at=row.updated_at,
        completed_at=row.completed_at,
    )


def rollout_detail_out(view: RolloutView) -> RolloutDetailOut:
    """A rollout in full."""
    servers = [
        RolloutServerOut(
            server_id=server.id,
            name=server.name,
            wave=row.wave,
            status=row.status,
            task_id=row.task_id,
            version_before=row.version_before,
            error=row.error,
            started_at=row.started_at,
            completed_at=row.completed_at,
        )
        for row, server in view.servers
    ]
    return RolloutDetailOut(**msgspec.structs.asdict(rollout_out(view)), servers=servers)


class RolloutApi(Controller):
    """Upgrades of many servers in waves."""

    path = "/rollouts"
    tags = ["rollouts"]

    @get(summary="List rollouts")
    async def list_rollouts(
        self, context: TheContext, actor: TheActor, page: Page = 1, page_size: PageSize = 25
    ) -> PageOf[RolloutOut]:
        """Newest first."""
        views, total = await service.list_rollouts(context, actor, page=page, page_size=page_size)
        return PageOf(items=[rollout_out(view) for view in views], total=total, page=page, page_size=page_size)

    @post(status_code=HTTP_201_CREATED, summary="Start a rollout")
    async def create(self, context: TheContext, actor: TheActor, data: JSONBody[RolloutNew]) -> RolloutDetailOut:
        """The first wave is ordered at once; it pauses by itself at the first server that is not well."""
        return rollout_detail_out(await service.create(context, actor, data))

    @get("/{rollout_id:int}", summary="Show a rollout")
    async def show(self, context: TheContext, actor: TheActor, rollout_id: FromPath[int]) -> RolloutDetailOut:
        """With every server."""
        return rollout_detail_out(await service.get(context, actor, rollout_id))

    @post("/{rollout_id:int}/pause", status_code=HTTP_200_OK, summary="Pause a rollout")
    async def pause(self, context: TheContext, actor: TheActor, rollout_id: FromPath[int]) -> RolloutDetailOut:
        """No further server is ordered."""
        return rollout_detail_out(await service.pause(context, actor, rollout_id))

    @post("/{rollout_id:int}/resume", status_code=HTTP_200_OK, summary="Resume a rollout")
    async def resume(self, context: TheContext, actor: TheActor, rollout_id: FromPath[int]) -> RolloutDetailOut:
        """Servers that failed or were left out get another turn."""
        return rollout_detail_out(await service.resume(context, actor, rollout_id))

    @post("/{rollout_id:int}/cancel", status_code=HTTP_200_OK, summary="Cancel a rollout")
    async def cancel(self, context: TheContext, actor: TheActor, rollout_id: FromPath[int]) -> RolloutDetailOut:
        """For good; what already runs, runs on."""
        return rollout_detail_out(await service.cancel(context, actor, rollout_id))
