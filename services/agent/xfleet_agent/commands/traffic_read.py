"""`traffic.read`: Xray's own counters, for people who look; billing goes by the ledger."""

import msgspec

from xfleet_agent.commands.serving import serving
from xfleet_agent.desk import Verb
from xfleet_agent.parts import Parts
from xfleet_contracts import codec
from xfleet_contracts.commands import ClientCounters, TrafficRead, TrafficReading
from xfleet_xraykit.counters import client_traffic

NAME = "traffic.read"
MAX_ROWS = 2000


def verb(parts: Parts) -> Verb:
    """How it is carried out."""

    async def handle(body: msgspec.Raw) -> TrafficReading:
        asked = codec.decode(bytes(body), TrafficRead)
        running = serving(parts)
        traffic = client_traffic(await running.api.query_counters())
        wanted = set(asked.clients)
        rows = sorted((refs, moved) for refs, moved in traffic.items() if not wanted or refs[0] in wanted)
        page = rows[max(0, asked.offset) :][: max(0, min(asked.limit, MAX_ROWS))]
        return TrafficReading(
            start_id=running.start_id,
            total_count=len(rows),
            rows=tuple(
                ClientCounters(client=refs[0], inbound=refs[1], up_bytes=moved.up_bytes, down_bytes=moved.down_bytes)
                for refs, moved in page
            ),
        )

    return Verb(handler=handle)
