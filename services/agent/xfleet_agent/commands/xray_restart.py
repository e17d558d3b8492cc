"""`xray.restart`: a new Xray takes over from the old one, whose connections end after their last byte was read."""

import msgspec

from xfleet_agent.commands.serving import XrayNotRunning, serving
from xfleet_agent.desk import Verb
from xfleet_agent.parts import Parts
from xfleet_contracts.commands import XrayVersion
from xfleet_xraykit.errors import XrayDown, XrayHung

NAME = "xray.restart"


def verb(parts: Parts) -> Verb:
    """How it is carried out."""

    async def handle(_body: msgspec.Raw) -> XrayVersion:
        serving(parts)
        try:
            await parts.driver.replace(await parts.applier.restart_state(), drain_s=0)
        except (XrayDown, XrayHung) as error:
            raise XrayNotRunning(reason=str(error)) from error
        parts.beat.set()
        return XrayVersion(version=parts.driver.version, start_id=parts.driver.state().start_id)

    return Verb(handler=handle, repeatable=False, at_once=1)
