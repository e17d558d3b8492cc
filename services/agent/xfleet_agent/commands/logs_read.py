"""`logs.read`: the newest lines of a log that may be read."""

import msgspec

from xfleet_agent.aside import aside
from xfleet_agent.desk import Verb
from xfleet_agent.parts import Parts
from xfleet_contracts import codec
from xfleet_contracts.logs import LOGS_READ, LogsRead, LogText

NAME = LOGS_READ


def verb(parts: Parts) -> Verb:
    """How it is carried out."""

    async def handle(body: msgspec.Raw) -> LogText:
        return await aside(parts.logs.read, codec.decode(bytes(body), LogsRead))

    return Verb(handler=handle, at_once=2)
