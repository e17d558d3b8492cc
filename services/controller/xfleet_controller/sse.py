"""Live pages: one event stream per page that is looked at, carrying only the fragments that changed.

A page says which fragments it shows (`/live?page=clients&ids=1,2`). They are rendered when something rang the pulse, at
most every `LEAST_GAP_S`, compared with what this stream sent last, and sent together as one message of `<hx-partial>`
elements. Silence is broken by a comment every `PING_S`; every `CHECK_S` the session is looked at again.
"""

import asyncio
from collections.abc import AsyncIterator

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromQuery
from litestar.response import Stream

from xfleet_contracts.errors import Refusal
from xfleet_controller.auth.service import NotSignedIn
from xfleet_controller.edge import find_actor
from xfleet_controller.panel.forms import whole_number
from xfleet_controller.panel.live_pages import PAGES, LivePage
from xfleet_controller.panel.visit import Visit

LEAST_GAP_S = 1.0
LOOK_EVERY_S = 5.0
"""How long a page waits for the pulse before it looks by itself: statuses also change by silence."""
PING_S = 15.0
CHECK_S = 10.0
"""How long a stream may outlive its session, however much there is to tell."""
MAX_IDS = 200
PING = b": still here\n\n"
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


@get("/live", include_in_schema=False)
async def live(
    visit: NamedDependency[Visit], page: FromQuery[str] = "", ids: FromQuery[str] = ""
) -> Stream | Response[bytes]:
    """The stream of one page; an unknown page has nothing to say and gets no stream."""
    fragments = PAGES.get(page)
    if fragments is None:
        return Response(b"", status_code=204)
    wanted = tuple(number for each in ids.split(",")[:MAX_IDS] if (number := whole_number(each)) is not None)
    return Stream(stream_of(visit, fragments, wanted), media_type="text/event-stream", headers=HEADERS)


async def stream_of(visit: Visit, page: LivePage, ids: tuple[int, ...]) -> AsyncIterator[bytes]:
    """The messages of one stream, until the browser goes, the session ends or the controller stops."""
    sent: dict[str, str] = {}
    pulse, clock = visit.context.pulse, visit.context.clock
    quiet_since_s = checked_s = clock.monotonic_s()
    while not pulse.closed:
        seen_count = pulse.rings_count
        if clock.monotonic_s() - checked_s >= CHECK_S:
            if not await still_signed_in(visit):
                return
            checked_s = clock.monotonic_s()
        try:
            fresh = await page(visit, ids)
        except Refusal:
            return
        changed = {name: text for name, text in fresh.items() if sent.get(name) != text}
        if changed:
            sent |= changed
            yield message_of(changed)
            quiet_since_s = clock.monotonic_s()
        elif clock.monotonic_s() - quiet_since_s >= PING_S:
            yield PING
            quiet_since_s = clock.monotonic_s()
        await asyncio.sleep(LEAST_GAP_S)
        await pulse.wait(seen_count, LOOK_EVERY_S - LEAST_GAP_S)


def message_of(changed: dict[str, str]) -> bytes:
    """What changed as server-sent events: fragments in one message, and each `event:<name>` as an event of its own."""
    events = {name.removeprefix("event:"): text for name, text in changed.items() if name.startswith("event:")}
    fragments = "".join(text for name, text in changed.items() if not name.startswith("event:"))
    lines = [f"event: {name}\ndata: {text}\n\n" for name, text in events.items()]
    if fragments:
        lines.append("".join(f"data: {line}\n" for line in fragments.splitlines() if line.strip()) + "\n")
    return "".join(lines).encode()


async def still_signed_in(visit: Visit) -> bool:
    """Whether the session the stream began with still holds."""
    try:
        await find_actor(visit.request)
    except NotSignedIn:
        return False
    return True
