"""Who else drives an Xray start that an agent asks about: its own dead predecessor, or a living double.

A killed process looks alive until its next beat fails to come. Therefore an instance counts as a double only when it
beats after the asker first asked, and as dead when its next beat is overdue; until then the answer is not final.
"""

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import msgspec

from xfleet_contracts.heartbeat import OFFLINE_AFTER_S

OVERDUE_FACTOR = 1.25
IN_FLIGHT_S = 2.0
"""A beat may reach us this long after its sender died."""
ASKERS_KEPT_COUNT = 20_000


class Beats(Protocol):
    """What presence remembers of one server."""

    beats: Mapping[str, tuple[Any, float]]
    """Newest heartbeat and its monotonic moment in seconds, by instance."""


class BeatBook(Protocol):
    """Presence, as far as clones are concerned."""

    offline_after_s: float

    def get(self, sid: str) -> Beats | None:
        """What is known of a server."""
        ...


class Doubles(msgspec.Struct, frozen=True):
    """What can be said about the asker's doubles."""

    owned_elsewhere: tuple[str, ...] = ()
    """Starts that a living double drives and the asker does not."""
    living: tuple[str, ...] = ()
    """Instances that beat after the asker first asked."""
    undecided: bool = False
    """Another instance may be alive or not: ask again."""


class CloneWatch:
    """Remembers when each instance first asked."""

    def __init__(self, book: BeatBook) -> None:
        self._book = book
        self._first_asked_s: dict[tuple[str, str], float] = {}

    def look(self, sid: str, asker: str, starts: Collection[str], now_s: float) -> Doubles:
        """What is known about others of this server while `asker` asks about these starts."""
        if len(self._first_asked_s) > ASKERS_KEPT_COUNT:
            self._first_asked_s.clear()
        asked_s = self._first_asked_s.setdefault((sid, asker), now_s)
        seen = self._book.get(sid)
        if seen is None:
            return Doubles()
        own = seen.beats.get(asker)
        driven = own[0].xray.start_id if own is not None else ""
        overdue_s = self._book.offline_after_s / OFFLINE_AFTER_S * 10 * OVERDUE_FACTOR
        owned, living, undecided = set[str](), set[str](), False
        for instance, (beat, heard_s) in seen.beats.items():
            start = beat.xray.start_id
            if instance == asker or now_s - heard_s > self._book.offline_after_s:
                continue
            alive = heard_s > asked_s + IN_FLIGHT_S
            if alive:
                living.add(instance)
            if not start or start not in starts or start == driven:
                continue
            if alive:
                owned.add(start)
            elif now_s - heard_s < overdue_s:
                undecided = True
        return Doubles(tuple(sorted(owned)), tuple(sorted(living)), undecided)
