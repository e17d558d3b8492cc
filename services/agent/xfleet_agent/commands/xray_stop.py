"""`xray.stop`: stops Xray in order, after its last byte was read, until somebody starts it again."""

import msgspec

from xfleet_agent.desk import Verb
from xfleet_agent.parts import Parts
from xfleet_contracts.commands import Nothing

NAME = "xray.stop"


def verb(parts: Parts) -> Verb:
    """How it is carried out."""

    async def handle(_body: msgspec.Raw) -> Nothing:
        await parts.driver.stop(by_order=True)
        parts.courier.wake()
        parts.beat.set()
        return Nothing()

    return Verb(handler=handle, at_once=1)
