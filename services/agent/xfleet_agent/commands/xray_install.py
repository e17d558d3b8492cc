"""`xray.install`: another version of Xray takes over, or the old one stays."""

import msgspec

from xfleet_agent.desk import Verb
from xfleet_agent.parts import Parts
from xfleet_contracts import codec
from xfleet_contracts.installs import XRAY_INSTALL, XrayInstall, XrayInstalled

NAME = XRAY_INSTALL


def verb(parts: Parts) -> Verb:
    """How it is carried out."""

    async def handle(body: msgspec.Raw) -> XrayInstalled:
        try:
            return await parts.installer.install(codec.decode(bytes(body), XrayInstall))
        finally:
            parts.beat.set()

    return Verb(handler=handle, at_once=1)
