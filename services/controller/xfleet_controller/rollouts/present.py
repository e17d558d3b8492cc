"""Rollouts as views."""

from itertools import groupby

import msgspec

from xfleet_controller.auth.rights import Actor, may
from xfleet_controller.rollouts import store
from xfleet_controller.rollouts.service import WRITE, RolloutView
from xfleet_controller.rollouts.views import RolloutDetailView, RolloutRowView, RolloutServerView, WaveView

WORDS = {"agent.update": "Agent", "xray.install": "Xray", "geofiles.update": "Geo files"}


def rollout_row(view: RolloutView) -> RolloutRowView:
    """One line of the list."""
    row, counts = view.rollout, view.counts
    version = str(view.plan.order.get("version", ""))
    return RolloutRowView(
        id=row.id,
        title=f"{WORDS.get(row.verb, row.verb)} {version}".strip(),
        status=row.status,
        done_count=counts.get(store.HEALTHY, 0) + counts.get(store.SKIPPED, 0),
        failed_count=counts.get(store.FAILED, 0),
        total_count=sum(counts.values()),
        created_at=row.created_at,
        ordered_by=row.actor.removeprefix("admin:"),
        error=row.error,
    )


def rollout_detail(view: RolloutView, actor: Actor) -> RolloutDetailView:
    """One rollout in full."""
    waves = tuple(
        WaveView(
            number=number,
            servers=tuple(
                RolloutServerView(
                    server_id=server.id,
                    name=server.name,
                    status=row.status,
                    version_before=row.version_before,
                    task_id=row.task_id,
                    error=row.error,
                )
                for row, server in members
            ),
        )
        for number, members in groupby(view.servers, key=lambda each: each[0].wave)
    )
    return RolloutDetailView(
        row=rollout_row(view),
        waves=waves,
        watch_s=view.plan.watch_s,
        order=msgspec.json.format(msgspec.json.encode(view.plan.order), indent=2).decode(),
        trace_id=view.plan.trace_id,
        completed_at=view.rollout.completed_at,
        may_write=may(actor, WRITE),
    )
