"""`geofiles.update`: new geo files, read by a new Xray."""

import msgspec

from xfleet_agent.desk import Verb
from xfleet_agent.parts import Parts
from xfleet_contracts import codec
from xfleet_contracts.installs import GEOFILES_UPDATE, GeoFilesUpdate, GeoFilesUpdated

NAME = GEOFILES_UPDATE


def verb(parts: Parts) -> Verb:
    """How it is carried out."""

    async def handle(body: msgspec.Raw) -> GeoFilesUpdated:
        try:
            return await parts.installer.update_geo(codec.decode(bytes(body), GeoFilesUpdate).files)
        finally:
            parts.beat.set()

    return Verb(handler=handle, at_once=1)
