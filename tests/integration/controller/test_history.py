"""Versions of a server's configuration: when one is written, how two differ in words, and the way back."""

import msgspec
import pytest
from sqlalchemy import func, select

from harness.controller import ADMIN, REALITY, WEBSOCKET
from xfleet_controller.auth.rights import Actor, Forbidden
from xfleet_controller.clients import service as clients
from xfleet_controller.clients.models import ClientInbound, Tombstone
from xfleet_controller.clients.service import ClientNew
from xfleet_controller.context import Context
from xfleet_controller.errors import EditedMeanwhile, Invalid, NotFound
from xfleet_controller.inbounds import service as inbounds
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.inbounds.service import InboundEdit, InboundNew, InboundView
from xfleet_controller.servers import history, service, versions
from xfleet_controller.servers.history import RevertOrder
from xfleet_controller.servers.models import ConfigVersion, Server, ServerRevision
from xfleet_controller.servers.service import ServerEdit

pytestmark = pytest.mark.postgres
READER = Actor(name="reader", role="read-only", admin_id=2)


async def add(context: Context, server: Server, template: dict = REALITY, **more: object) -> InboundView:
    view, _ = await inbounds.create_inbound(context, ADMIN, InboundNew(server_id=server.id, **(template | more)))
    return view


async def newest(context: Context, server: Server) -> int:
    return (await history.list_versions(context, ADMIN, server.id))[0][0].id


async def lines(context: Context, server: Server, version: int) -> list[tuple[str, str, str, str]]:
    found = await history.compare_versions(context, ADMIN, server.id, version)
    return [(each.change, each.path, each.old, each.new) for each in found]


async def bodies(context: Context, server: Server) -> dict[str, InboundView]:
    found, _ = await inbounds.list_inbounds(context, ADMIN, server_id=server.id)
    return {each.row.remark: each for each in found}


async def test_only_a_change_of_configuration_makes_a_version_and_none_holds_a_secret(
    context: Context, server: Server
) -> None:
    view = await add(context, server)
    private_key = view.body.stream_settings["realitySettings"]["privateKey"]
    made = await newest(context, server)
    client, _ = await clients.create_client(context, ADMIN, ClientNew(name="alice", inbound_ids=[view.row.id]))
    await clients.delete_client(context, ADMIN, client.row.id)
    await service.edit_server(context, ADMIN, server.id, ServerEdit(name="renamed"))
    await inbounds.edit_inbound(context, ADMIN, view.row.id, InboundEdit(port=view.row.port))
    assert await newest(context, server) == made
    await inbounds.edit_inbound(context, ADMIN, view.row.id, InboundEdit(remark="another name"))
    await service.edit_server(context, ADMIN, server.id, ServerEdit(allow_private_destinations=True))
    found, total = await history.list_versions(context, ADMIN, server.id)
    assert [each.operation for each in found] == ["edit_server", "edit_inbound", "add_inbound", "add_server"]
    assert (total, [each.is_present for each in found]) == (4, [True, False, False, False])
    assert [(each.path, each.new) for each in found[1].changes] == [("remark", "another name")]
    assert ("allow_private_destinations", "no", "yes") in [(each.path, each.old, each.new) for each in found[0].changes]
    async with context.database.read() as session:
        kept = msgspec.json.encode([row.body for row in await session.scalars(select(ConfigVersion))]).decode()
    assert private_key not in kept
    assert "[redacted]" in kept


async def test_a_difference_is_told_in_fields_and_words(context: Context, server: Server) -> None:
    view = await add(context, server)
    before = await newest(context, server)
    stream = msgspec.json.decode(msgspec.json.encode(view.body.stream_settings))
    stream["realitySettings"] |= {"serverNames": ["example.com", "www.example.com"], "show": True}
    await inbounds.edit_inbound(
        context, ADMIN, view.row.id, InboundEdit(port=8444, enabled=False, stream_settings=stream)
    )
    assert await lines(context, server, before) == [
        ("change", "port", "8443", "8444"),
        ("change", "enabled", "yes", "no"),
        ("change", "stream_settings.realitySettings.serverNames", "example.com", "example.com, www.example.com"),
        ("change", "stream_settings.realitySettings.show", "not set", "yes"),
    ]
    await inbounds.delete_inbound(context, ADMIN, view.row.id)
    assert await lines(context, server, before) == [("remove", "", "vless, raw, reality, port 8443", "")]
    with pytest.raises(NotFound):
        await history.compare_versions(context, ADMIN, server.id, 4711)
    with pytest.raises(NotFound):
        await history.list_versions(context, ADMIN, 4711)


async def test_going_back_gives_old_settings_with_present_keys(context: Context, server: Server) -> None:
    view = await add(context, server)
    client, _ = await clients.create_client(context, ADMIN, ClientNew(name="alice", inbound_ids=[view.row.id]))
    before = await newest(context, server)
    stream = msgspec.json.decode(msgspec.json.encode(view.body.stream_settings))
    stream["realitySettings"] |= {"privateKey": "", "target": "example.org:443"}
    changed, _ = await inbounds.edit_inbound(
        context, ADMIN, view.row.id, InboundEdit(port=8444, remark="later", stream_settings=stream)
    )
    rotated = changed.body.stream_settings["realitySettings"]["privateKey"]
    assert rotated != view.body.stream_settings["realitySettings"]["privateKey"]
    preview = await history.preview_revert(context, ADMIN, server.id, before)
    assert {(each.path, each.new) for each in preview.changes} == {
        ("remark", "reality"), ("port", "8443"), ("stream_settings.realitySettings.target", "example.com:443"),
    }  # fmt: skip
    done = await history.revert(context, ADMIN, server.id, before, RevertOrder(seen=preview.seen))
    assert (len(done.task_ids), len(done.changes), done.left_out) == (1, 3, ())
    now = (await inbounds.get_inbound(context, ADMIN, view.row.id)).body
    settings = now.stream_settings["realitySettings"]
    assert (now.port, settings["target"], settings["privateKey"]) == (8443, "example.com:443", rotated)
    assert (await clients.get_client(context, ADMIN, client.row.id)).inbound_ids == [view.row.id]
    found, _ = await history.list_versions(context, ADMIN, server.id)
    assert found[0].operation == "revert_config"
    again = await history.revert(context, ADMIN, server.id, before, RevertOrder())
    assert (again.task_ids, again.changes) == ([], [])


async def test_a_deleted_inbound_comes_back_as_a_new_one_without_clients(context: Context, server: Server) -> None:
    view = await add(context, server)
    await clients.create_client(context, ADMIN, ClientNew(name="alice", inbound_ids=[view.row.id]))
    before = await newest(context, server)
    await inbounds.delete_inbound(context, ADMIN, view.row.id)
    await history.revert(context, ADMIN, server.id, before, RevertOrder())
    (back,) = (await bodies(context, server)).values()
    old, new = (each.body.stream_settings["realitySettings"] for each in (view, back))
    assert (back.row.remark, back.row.port, back.clients_count) == ("reality", 8443, 0)
    assert back.row.ref != view.row.ref
    assert new["privateKey"] != old["privateKey"]
    assert new["shortIds"] != old["shortIds"]


async def test_inbounds_added_since_go_only_when_asked(context: Context, server: Server) -> None:
    await add(context, server)
    before = await newest(context, server)
    added = await add(context, server, WEBSOCKET)
    await clients.create_client(context, ADMIN, ClientNew(name="alice", inbound_ids=[added.row.id]))
    preview = await history.preview_revert(context, ADMIN, server.id, before)
    assert [(each.name, each.clients_count) for each in preview.added] == [("ws (port 8080)", 1)]
    assert (await history.revert(context, ADMIN, server.id, before, RevertOrder())).task_ids == []
    assert set(await bodies(context, server)) == {"reality", "ws"}
    done = await history.revert(context, ADMIN, server.id, before, RevertOrder(remove_added=True))
    assert set(await bodies(context, server)) == {"reality"}
    async with context.database.read() as session:
        tombstone = await session.get_one(Tombstone, ("inbound", str(added.row.ref)))
        assert tombstone.retiring
        assert await session.scalar(select(func.count()).select_from(ClientInbound)) == 0
    assert len(done.task_ids) == 1


async def test_going_back_into_a_taken_port_changes_nothing(context: Context, server: Server) -> None:
    view = await add(context, server)
    before = await newest(context, server)
    await inbounds.edit_inbound(context, ADMIN, view.row.id, InboundEdit(port=8444))
    await add(context, server, WEBSOCKET, port=8443)
    with pytest.raises(Invalid, match="would collide with the inbound ws"):
        await history.revert(context, ADMIN, server.id, before, RevertOrder())
    assert (await bodies(context, server))["reality"].row.port == 8444
    await history.revert(context, ADMIN, server.id, before, RevertOrder(remove_added=True))
    assert {name: each.row.port for name, each in (await bodies(context, server)).items()} == {"reality": 8443}


async def test_an_inbound_whose_secrets_are_gone_is_left_out_and_said_to_be(context: Context, server: Server) -> None:
    pair = {"certificate": ["-----BEGIN CERTIFICATE-----"], "key": ["-----BEGIN PRIVATE KEY-----"]}
    stream = {"network": "raw", "security": "tls", "tlsSettings": {"certificates": [pair]}}
    async with context.database.write() as session:
        row = await session.get_one(ServerRevision, server.id)
        form = versions.InboundForm(remark="tls", port=4443, protocol="vless", stream_settings=versions.bare(stream))
        body = msgspec.to_builtins(versions.ConfigForm(inbounds={"77": form}))
        session.add(
            ConfigVersion(server_id=server.id, revision=row.desired_revision, body=body, created_at=row.changed_at)
        )
    preview = await history.preview_revert(context, ADMIN, server.id, await newest(context, server))
    assert [each.name for each in preview.left_out] == ["tls (port 4443)"]
    assert "tlsSettings.certificates[0].key" in preview.left_out[0].reason
    done = await history.revert(context, ADMIN, server.id, preview.version, RevertOrder())
    assert (len(done.left_out), await bodies(context, server)) == (1, {})


async def test_going_back_from_what_somebody_else_changed_is_refused(context: Context, server: Server) -> None:
    view = await add(context, server)
    before = await newest(context, server)
    await inbounds.edit_inbound(context, ADMIN, view.row.id, InboundEdit(port=8444))
    preview = await history.preview_revert(context, ADMIN, server.id, before)
    await inbounds.edit_inbound(context, ADMIN, view.row.id, InboundEdit(port=8445))
    with pytest.raises(EditedMeanwhile):
        await history.revert(context, ADMIN, server.id, before, RevertOrder(seen=preview.seen))
    with pytest.raises(Forbidden):
        await history.revert(context, READER, server.id, before, RevertOrder())
    assert (await bodies(context, server))["reality"].row.port == 8445


async def test_the_last_two_hundred_versions_are_kept(context: Context, server: Server) -> None:
    view = await add(context, server)
    async with context.database.write() as session:
        for number in range(versions.VERSIONS_KEPT_COUNT):
            session.add(
                ConfigVersion(server_id=server.id, revision=2, body={"n": number}, created_at=context.clock.now())
            )
    await inbounds.edit_inbound(context, ADMIN, view.row.id, InboundEdit(port=8444))
    async with context.database.read() as session:
        rows = (await session.scalars(select(ConfigVersion).order_by(ConfigVersion.id))).all()
    assert len(rows) == versions.VERSIONS_KEPT_COUNT
    assert rows[0].body == {"n": 1}


async def test_a_server_from_before_there_were_versions_gets_a_first_one(context: Context, server: Server) -> None:
    view = await add(context, server)
    async with context.database.write() as session:
        for row in await session.scalars(select(ConfigVersion)):
            await session.delete(row)
    await versions.ensure_first_versions(context)
    await versions.ensure_first_versions(context)
    await inbounds.delete_inbound(context, ADMIN, view.row.id)
    found, _ = await history.list_versions(context, ADMIN, server.id)
    assert [each.operation for each in found] == ["delete_inbound", versions.FIRST]
    async with context.database.read() as session:
        assert await session.scalar(select(func.count()).select_from(Inbound)) == 0
