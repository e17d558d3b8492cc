"""`xray.version`: which Xray serves."""

import msgspec

from xfleet_agent.desk import Verb
from xfleet_agent.parts import Parts
from xfleet_contracts.commands import XrayVersion

NAME = "xray.version"


def verb(parts: Parts) -> Verb:
    """How it is carried out."""

    async def handle(_body: msgspec.Raw) -> XrayVersion:
        await parts.driver.learn_version()
        return XrayVersion(version=parts.driver.version, start_id=parts.driver.state().start_id)

    return Verb(handler=handle)
