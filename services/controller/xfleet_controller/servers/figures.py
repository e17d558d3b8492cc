"""What is known about a server's machine: from the beat of a moment ago, or the last one that was written down."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from xfleet_contracts.heartbeat import Heartbeat
from xfleet_controller.servers.beats import read_beat
from xfleet_controller.servers.condition import Problem, problems_of
from xfleet_controller.servers.presence import ONLINE, Presence
from xfleet_controller.servers.service import ServerView


class Latest(NamedTuple):
    """A server's newest beat."""

    beat: Heartbeat
    at: datetime
    """When it was heard."""
    live: bool
    """Whether it is of a moment ago; otherwise it is the last known."""

    def since(self, uptime_s: int | None) -> datetime | None:
        """When something that has run for so long began; None for what did not run, or says nonsense."""
        if not uptime_s or not 0 < uptime_s < 10**9:
            return None
        return self.at - timedelta(seconds=uptime_s)


def latest_of(view: ServerView, presence: Presence) -> Latest | None:
    """The newest beat of a server; None when it never spoke."""
    seen = presence.get(view.server.slug)
    if seen is not None:
        at = datetime.fromtimestamp(seen.received_at_ms / 1000, UTC)
        return Latest(seen.beat, at, view.status == ONLINE)
    kept = read_beat(view.server.last_beat)
    if kept is None or view.server.last_seen_at is None:
        return None
    return Latest(kept, view.server.last_seen_at, live=False)


def problems(view: ServerView, latest: Latest | None, now: datetime) -> tuple[Problem, ...]:
    """What a person should look at, worst first."""
    beat = latest.beat if latest is not None and latest.live else None
    return problems_of(view.server, view.revision, view.status, view.reason, beat, now)
