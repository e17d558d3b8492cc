"""How a rollout is decided: its waves, and whether a server that was upgraded is well. Pure."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from xfleet_contracts.heartbeat import Heartbeat
from xfleet_contracts.installs import AGENT_UPDATE, GEOFILES_UPDATE, XRAY_INSTALL

ROLLABLE = (AGENT_UPDATE, XRAY_INSTALL, GEOFILES_UPDATE)
DEFAULT_WAVES = ("1", "10%", "rest")
REST = "rest"
MAX_WAVES = 20
_SIZE = re.compile(r"([1-9][0-9]{0,4})(%?)")
_WHOLE_PERCENT = 100
SETTLE_S = 90.0
"""How long after its order a server may take to be well at all, beside the agent's own probation."""


def is_size(text: str) -> bool:
    """Whether this says how large a wave is: a number, a share such as `10%`, or `rest`."""
    match = _SIZE.fullmatch(text)
    return text == REST or (match is not None and not (match[2] and int(match[1]) > _WHOLE_PERCENT))


def plan_waves(server_ids: Sequence[int], sizes: Sequence[str]) -> list[list[int]]:
    """The servers in waves; shares are of all servers, rounded up; what no size covers is one wave more."""
    left, waves = list(server_ids), list[list[int]]()
    for size in (*sizes, REST):
        if not left:
            break
        number, _, _ = size.partition("%") if size != REST else (str(len(left)), "", "")
        count = math.ceil(len(server_ids) * int(number) / _WHOLE_PERCENT) if size.endswith("%") else int(number)
        waves.append(left[:count])
        left = left[count:]
    return waves


class Sight(NamedTuple):
    """What is seen of a server now."""

    online: bool
    beat: Heartbeat | None
    fresh: bool
    """The beat came after the order was done."""


@dataclass(kw_only=True)
class Watch:
    """One server while it is watched; kept in memory: after a restart of the controller it is watched anew."""

    begun_s: float
    good_since_s: float | None = None
    restarts_count: int = 0


class Verdict(NamedTuple):
    """What came of watching."""

    status: Literal["watching", "healthy", "failed"]
    reason: str = ""


def reason_to_leave_alone(*, enabled: bool, mode: str) -> str:
    """Why people keep a server out of rollouts; empty when they do not."""
    if not enabled:
        return "It was disabled when its turn came."
    if mode == "maintenance":
        return "It was in maintenance when its turn came."
    return ""


def reason_to_skip(verb: str, sight: Sight) -> str:
    """Why a server is left out when its turn comes; empty when it takes part."""
    if not sight.online or sight.beat is None:
        return "It was offline when its turn came."
    if verb == AGENT_UPDATE and not sight.beat.upgradable:
        return "Its agent was not installed in a way that it can replace itself."
    if sight.beat.xray.status != "running":
        return f"Its Xray was {sight.beat.xray.status}, so nobody could tell whether the upgrade broke it."
    return ""


def trouble_of(verb: str, wanted_version: str, sight: Sight) -> str:
    """What is wrong with an upgraded server; empty when it is well."""
    if not sight.online or not sight.fresh or sight.beat is None:
        return "It has not been heard since."
    beat = sight.beat
    found = {AGENT_UPDATE: beat.agent_version, XRAY_INSTALL: beat.xray.version}.get(verb, wanted_version)
    if wanted_version and found != wanted_version:
        return f"It runs {found[:50] or 'an unknown version'} instead of {wanted_version[:50]}."
    if beat.xray.status != "running":
        return f"Its Xray is {beat.xray.status}."
    return ""


def judge(watch: Watch, sight: Sight, trouble: str, now_s: float, *, watch_s: float, settle_s: float) -> Verdict:
    """Whether the server is well for long enough; moves `watch` on."""
    if watch.good_since_s is None:
        if trouble:
            return Verdict("failed", trouble) if now_s - watch.begun_s > settle_s else Verdict("watching", trouble)
        watch.good_since_s = now_s
        watch.restarts_count = sight.beat.xray.restarts_count if sight.beat is not None else 0
    if trouble and (not sight.online or not sight.fresh):  # a lost link is no crash: it gets the same time to return
        watch.begun_s, watch.good_since_s = now_s, None
        return Verdict("watching", trouble)
    if trouble:
        return Verdict("failed", trouble)
    if sight.beat is not None and sight.beat.xray.restarts_count > watch.restarts_count:
        return Verdict("failed", "Its Xray crashed or was restarted while it was watched.")
    return Verdict("healthy" if now_s - watch.good_since_s >= watch_s else "watching")
