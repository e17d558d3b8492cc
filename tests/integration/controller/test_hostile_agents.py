"""What a broken or hostile agent tells and asks: it harms its own server at most."""

import json
from typing import Any

import msgspec
import pytest

from harness.controller import add_server, make_beat
from xfleet_contracts import subjects
from xfleet_contracts.heartbeat import HostFigures, XrayState
from xfleet_controller.context import Context
from xfleet_controller.servers import service
from xfleet_controller.servers.jobs import flush_presence
from xfleet_controller.servers.models import Server
from xfleet_runtime.broker import Incoming

LIES: dict[str, dict[str, Any]] = {
    "a revision no column holds": {"wanted_revision": 2**70},
    "a revision that ends all revisions": {"wanted_revision": 2**63 - 2},
    "a revision below none": {"applied_revision": -(2**65)},
    "text no database takes": {
        "instance": "i\0",
        "agent_version": "\0",
        "wanted_digest": "\0" * 70,
        "xray": XrayState(status="running", version="\0", last_error="\0" * 5000),
        "host": HostFigures(os="\0", hostname="\0" * 9999, default_address="\0", kernel="\0"),
    },
    "figures beyond every scale": {"host": HostFigures(network_up_bytes_s=10**400, memory_used_bytes=10**400)},
    "credentials of another age": {"credentials_expire_at_ms": 10**30, "sent_at_ms": -(10**30)},
}


@pytest.mark.parametrize("name", sorted(LIES))
async def test_a_lying_beat_keeps_nobody_elses_presence_from_the_database(
    context: Context, api: Any, server: Server, name: str
) -> None:
    other = await add_server(context, "other")
    context.presence.now_listening()
    beats = {server.slug: msgspec.structs.replace(make_beat(1), **LIES[name]), other.slug: make_beat(1)}
    for sid, beat in beats.items():
        await context.presence.on_heartbeat(
            Incoming(subjects.heartbeat(sid), json.dumps(msgspec.to_builtins(beat)).encode(), "", {})
        )
    await flush_presence(context)
    known = await service.refresh_known(context)
    assert known[other.slug].status == "online"
    async with context.database.read() as session:
        assert (await session.get_one(Server, other.id)).last_seen_at is not None
    assert (await api.get("/api/v1/servers")).status_code == 200
    assert (await api.get("/metrics")).status_code in {200, 401, 403, 404}
    assert (await api.get(f"/api/v1/servers/{server.id}")).status_code == 200
