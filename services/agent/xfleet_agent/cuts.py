"""Cuts: which clients the agent disconnects by its own decision, with or without a controller.

A cut is a durable row. One for expiry is lifted only by a changed moment of expiry in the wanted state, one for a used
up allowance only by a newer serial that leaves room; neither by a restart, a clock, or a lost broker.
"""

from collections.abc import Mapping

import msgspec

from xfleet_agent.state import Cut, Entities
from xfleet_contracts.desired_state import ClientBody

Cuts = Mapping[tuple[int, str], Cut]


def expiries_of(wanted: Entities) -> dict[int, int]:
    """Client to the moment (ms) after which it must not be served; the latest when its entities differ."""
    latest: dict[int, int | None] = {}
    for key, raw in wanted.items():
        if key.kind != "client" or b"expires_at_ms" not in raw:
            if key.kind == "client":
                latest[int(key.id.partition(".")[0])] = None
            continue
        try:
            body = msgspec.json.decode(raw, type=ClientBody)
        except msgspec.DecodeError:
            continue
        if body.client in latest and (body.expires_at_ms is None or latest[body.client] is None):
            latest[body.client] = None
        else:
            latest[body.client] = max(latest.get(body.client) or 0, body.expires_at_ms or 0) or None
    return {client: at_ms for client, at_ms in latest.items() if at_ms is not None}


def plan_cuts(
    cuts: Cuts, expiries: Mapping[int, int], exhausted: Mapping[int, int], *, now_ms: int, clock_trusted: bool
) -> tuple[list[Cut], list[tuple[int, str]]]:
    """(cuts to add, cuts to lift). `exhausted` is client to the serial of its used-up allowance."""
    add: list[Cut] = []
    lift: list[tuple[int, str]] = []
    for client, at_ms in expiries.items():
        known = cuts.get((client, "expired"))
        if at_ms <= now_ms and clock_trusted and (known is None or known.mark != at_ms):
            add.append(Cut(client=client, reason="expired", mark=at_ms))
    for client, serial in exhausted.items():
        known = cuts.get((client, "allowance"))
        if known is None or known.mark != serial:
            add.append(Cut(client=client, reason="allowance", mark=serial))
    added = {(cut.client, cut.reason) for cut in add}
    for name, cut in cuts.items():
        if name in added:
            continue
        lifted = expiries.get(cut.client) != cut.mark if cut.reason == "expired" else cut.client not in exhausted
        if lifted:
            lift.append(name)
    return add, lift


def cut_clients(cuts: Cuts) -> frozenset[int]:
    """Everyone who is cut for any reason."""
    return frozenset(client for client, _ in cuts)


def next_expiry_ms(cuts: Cuts, expiries: Mapping[int, int]) -> int | None:
    """The next moment at which somebody expires who is not cut yet."""
    return min((at for client, at in expiries.items() if (client, "expired") not in cuts), default=None)
