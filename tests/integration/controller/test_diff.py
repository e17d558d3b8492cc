"""What a server should run and does not, in people's words."""

from pathlib import Path

import msgspec
import pytest

from harness.controller import ADMIN, REALITY, WEBSOCKET, add_server, make_beat, make_context
from xfleet_contracts.apply import Degraded
from xfleet_contracts.desired_state import EntityKey
from xfleet_controller.clients import service as clients
from xfleet_controller.clients.service import ClientEdit, ClientNew
from xfleet_controller.context import Context
from xfleet_controller.db import Database
from xfleet_controller.errors import NotFound
from xfleet_controller.inbounds import service as inbounds
from xfleet_controller.inbounds.service import InboundEdit, InboundNew
from xfleet_controller.servers.diff import server_diff
from xfleet_controller.servers.models import Server, ServerRevision, StrayEntity

pytestmark = pytest.mark.postgres


@pytest.fixture
def context(database: Database, tmp_path: Path) -> Context:
    return make_context(database, tmp_path)


@pytest.fixture
async def server(context: Context) -> Server:
    return await add_server(context)


async def acknowledge(context: Context, server: Server, seq: int = 1, **more: object) -> None:
    """The agent says that it runs what is wanted now."""
    async with context.database.read() as session:
        row = await session.get_one(ServerRevision, server.id)
    fields = {
        "wanted_revision": row.desired_revision,
        "wanted_digest": row.desired_digest,
        "applied_revision": row.desired_revision,
    }
    context.presence.take(server.slug, make_beat(seq, **(fields | more)))


async def test_changes_on_their_way_are_named_as_people_know_them(context: Context, server: Server) -> None:
    kept, _ = await inbounds.create_inbound(context, ADMIN, InboundNew(server_id=server.id, **REALITY))
    alice, _ = await clients.create_client(context, ADMIN, ClientNew(name="alice", inbound_ids=[kept.row.id]))
    bob, _ = await clients.create_client(context, ADMIN, ClientNew(name="bob", inbound_ids=[kept.row.id]))
    await acknowledge(context, server)
    assert (await server_diff(context, ADMIN, server.id)).lines == ()
    await inbounds.edit_inbound(context, ADMIN, kept.row.id, InboundEdit(port=8444))
    await inbounds.create_inbound(context, ADMIN, InboundNew(server_id=server.id, **WEBSOCKET))
    await clients.create_client(context, ADMIN, ClientNew(name="carol", inbound_ids=[kept.row.id]))
    await clients.delete_client(context, ADMIN, alice.row.id)
    await clients.edit_client(context, ADMIN, bob.row.id, ClientEdit(enabled=False))
    diff = await server_diff(context, ADMIN, server.id)
    assert diff.desired_revision - diff.applied_revision == 5
    assert {(line.change, line.name) for line in diff.lines} == {
        ("change", "reality (port 8444)"),
        ("add", "ws (port 8080)"),
        ("add", "carol on reality (port 8444)"),
        ("remove", "alice on reality (port 8444)"),
        ("remove", "bob on reality (port 8444)"),
    }
    await acknowledge(context, server, 2)
    assert (await server_diff(context, ADMIN, server.id)).lines == ()


async def test_refused_entities_and_strays_stand_in_the_difference(context: Context, server: Server) -> None:
    view, _ = await inbounds.create_inbound(context, ADMIN, InboundNew(server_id=server.id, **REALITY))
    await acknowledge(context, server)
    key = EntityKey(kind="inbound", id=str(view.row.ref))
    refused = Degraded(key=key, path="inbounds[8443].port", code="port_busy", reason="Port 8443 is taken.")
    async with context.database.write() as session:
        row = await session.get_one(ServerRevision, server.id)
        row.degraded = [msgspec.to_builtins(refused)]
        now = context.clock.now()
        session.add(StrayEntity(server_id=server.id, kind="inbound", entity_id="77", body_sealed=b"x", found_at=now))
    lines = (await server_diff(context, ADMIN, server.id)).lines
    assert [(line.change, line.id) for line in lines] == [("degraded", key.id), ("stray", "77")]
    assert lines[0].name == "reality (port 8443)"
    assert lines[0].text == "inbounds[8443].port: Port 8443 is taken. (port_busy; it does not run)"


async def test_a_state_nobody_knows_is_said_to_be_one(context: Context, server: Server) -> None:
    await acknowledge(context, server, wanted_revision=99, wanted_digest="f" * 64, applied_revision=99)
    (line,) = (await server_diff(context, ADMIN, server.id)).lines
    assert (line.kind, line.change) == ("state", "change")
    with pytest.raises(NotFound):
        await server_diff(context, ADMIN, 4711)
