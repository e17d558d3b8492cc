"""`xray.start`: starts an Xray that was stopped; one that runs is left alone."""

import msgspec

from xfleet_agent.commands.serving import XrayNotRunning
from xfleet_agent.desk import Verb
from xfleet_agent.parts import Parts
from xfleet_contracts.commands import XrayVersion
from xfleet_xraykit.errors import XrayDown, XrayHung

NAME = "xray.start"


def verb(parts: Parts) -> Verb:
    """How it is carried out."""

    async def handle(_body: msgspec.Raw) -> XrayVersion:
        try:
            await parts.driver.start()
        except (XrayDown, XrayHung) as error:
            raise XrayNotRunning(reason=str(error)) from error
        parts.beat.set()
        return XrayVersion(version=parts.driver.version, start_id=parts.driver.state().start_id)

    return Verb(handler=handle, at_once=1)
