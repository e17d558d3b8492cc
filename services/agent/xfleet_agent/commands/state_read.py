"""`state.read`: the desired state this agent holds, page by page."""

from collections.abc import Iterator

import msgspec

from xfleet_agent.desk import Verb
from xfleet_agent.parts import Parts
from xfleet_contracts import codec
from xfleet_contracts.care import STATE_READ, StateHeld, StateRead
from xfleet_contracts.desired_state import Entity, EntityKey

NAME = STATE_READ
PAGE_BYTES = 200 * 1024


def verb(parts: Parts) -> Verb:
    """How it is carried out."""

    async def handle(body: msgspec.Raw) -> StateHeld:
        asked = codec.decode(bytes(body), StateRead)
        point, wanted = parts.store.wanted_point, parts.store.wanted
        keys = sorted(wanted)
        return StateHeld(
            point=point, entities=tuple(_page(keys[max(0, asked.offset) :], wanted)), total_count=len(keys)
        )

    return Verb(handler=handle)


def _page(keys: list[EntityKey], wanted: dict[EntityKey, bytes]) -> Iterator[Entity]:
    """As many as fit, and one at least."""
    room_bytes = PAGE_BYTES
    for number, key in enumerate(keys):
        room_bytes -= len(wanted[key]) + len(key.id.encode()) + 64
        if number and room_bytes < 0:
            return
        yield Entity(kind=key.kind, id=key.id, body=msgspec.Raw(wanted[key]))
