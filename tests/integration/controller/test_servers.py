"""A server's life as people decide it: its fields, its mode, whether it is enabled, and two admins at once."""

import base64
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from sqlalchemy import select

from harness.controller import ADMIN, REALITY, add_server, make_beat, make_context
from xfleet_contracts.desired_state import StatePoint
from xfleet_contracts.errors import ErrorBody, RemoteRefusal
from xfleet_controller.audit.models import AuditRow
from xfleet_controller.clients.models import Tombstone
from xfleet_controller.context import Context
from xfleet_controller.db import Database
from xfleet_controller.fleet.models import Certificate, OutboxRow
from xfleet_controller.inbounds.models import Inbound
from xfleet_controller.servers import adopting, history, jobs, outcome, removal, service, store
from xfleet_controller.servers.models import Server, ServerRevision, StateEntity
from xfleet_controller.traffic.models import LedgerCursor, TagTotal
from xfleet_runtime.clock import FakeClock

URL = "/api/v1/servers"


async def events(context: Context) -> list[dict[str, Any]]:
    async with context.database.read() as session:
        return list(await session.scalars(select(OutboxRow.payload).where(OutboxRow.topic == "event")))


async def carried(context: Context, server_id: int) -> set[str]:
    """Kinds of what the server should run."""
    async with context.database.read() as session:
        query = select(StateEntity.kind).where(StateEntity.server_id == server_id, StateEntity.removed.is_(False))
        return set(await session.scalars(query))


async def sell(api: httpx.AsyncClient, server: Server, *, port: int = 8443, name: str = "alice") -> dict[str, Any]:
    """A client on a new inbound of the server."""
    inbound = (await api.post("/api/v1/inbounds", json={**REALITY, "server_id": server.id, "port": port})).json()
    made = await api.post("/api/v1/clients", json={"name": name, "inbound_ids": [inbound["id"]]})
    assert made.status_code == 201, made.text
    return made.json()


async def links(api: httpx.AsyncClient, client: dict[str, Any]) -> list[str]:
    body = (await api.get(f"/sub/{client['sub_id']}")).text
    return base64.b64decode(body).decode().split()


async def join(context: Context, server: Server, *, days: int = 300, revoked: bool = False) -> None:
    """An agent joined as this server some time ago."""
    now = context.clock.now()
    async with context.database.write() as session:
        session.add(
            Certificate(
                server_id=server.id, common_name=server.slug, serial_number=f"{server.slug}{days}{revoked}",
                nkey=f"U{server.slug}{days}", pem_certificate="", issued_at=now - timedelta(days=400),
                expires_at=now + timedelta(days=days), revoked_at=now if revoked else None,
            )
        )  # fmt: skip


async def test_the_later_of_two_admins_is_told_what_the_first_one_saved(
    api: httpx.AsyncClient, context: Context, server: Server
) -> None:
    shown = (await api.get(f"{URL}/{server.id}")).json()
    first = await api.patch(f"{URL}/{server.id}", json={"name": "Oslo", "notes": "rack 3", "version": shown["version"]})
    assert first.status_code == 200, first.text
    assert first.json()["version"] == shown["version"] + 1
    for headers, body in (({}, {"version": shown["version"]}), ({"If-Match": f'"{shown["version"]}"'}, {})):
        late = await api.patch(f"{URL}/{server.id}", json={"name": "Bergen", "tags": []} | body, headers=headers)
        assert (late.status_code, late.json()["code"]) == (409, "edited_meanwhile")
        assert late.json()["changed"] == {"name": {"theirs": "Oslo", "yours": "Bergen"}}
    assert (await api.get(f"{URL}/{server.id}")).json()["name"] == "Oslo"
    unchanged = await api.patch(f"{URL}/{server.id}", json={"name": "Oslo"})
    assert unchanged.json()["version"] == first.json()["version"]
    async with context.database.read() as session:
        (row,) = await session.scalars(select(AuditRow).where(AuditRow.action == "edit_server"))
    assert (row.before, row.after) == ({"name": "local", "notes": ""}, {"name": "Oslo", "notes": "rack 3"})
    assert (await api.patch(f"{URL}/{server.id}", json={}, headers={"If-Match": "x"})).status_code == 422


async def test_a_disabled_server_carries_nothing_and_is_in_no_subscription(
    api: httpx.AsyncClient, context: Context, server: Server
) -> None:
    client = await sell(api, server)
    assert len(await links(api, client)) == 1
    done = (await api.patch(f"{URL}/{server.id}", json={"enabled": False})).json()
    assert len(done["task_ids"]) == 1
    assert await carried(context, server.id) == {"outbound", "settings"}
    assert await links(api, client) == []
    await sell(api, server, port=9443, name="bob")
    assert await carried(context, server.id) == {"outbound", "settings"}
    await api.patch(f"{URL}/{server.id}", json={"enabled": True})
    assert await carried(context, server.id) == {"outbound", "settings", "inbound", "client"}
    assert len(await links(api, client)) == 1
    assert [each["type"] for each in await events(context)] == ["server_disabled", "server_enabled"]


@pytest.mark.parametrize("mode", ["drain", "maintenance"])
async def test_in_this_mode_a_server_is_handed_to_nobody_but_goes_on(
    api: httpx.AsyncClient, context: Context, server: Server, mode: str
) -> None:
    client = await sell(api, server)
    before = await carried(context, server.id)
    done = (await api.patch(f"{URL}/{server.id}", json={"mode": mode})).json()
    assert (done["mode"], done["task_ids"]) == (mode, [])
    assert await carried(context, server.id) == before
    assert await links(api, client) == []
    assert (await api.get(URL, params={"status": mode})).json()["total"] == 1
    assert (await api.get(URL, params={"status": "disabled"})).json()["total"] == 0


async def test_nobody_is_alarmed_about_a_server_in_maintenance(context: Context, server: Server) -> None:
    await join(context, server)
    context.presence.now_listening()
    for mode, told in (("maintenance", []), ("active", ["server_online"])):
        await service.edit_server(context, ADMIN, server.id, service.ServerEdit(mode=mode))
        async with context.database.write() as session:
            (await session.get_one(Server, server.id)).status = "offline"
        context.presence.take(server.slug, make_beat(1, instance=mode))
        await jobs.flush_presence(context)
        assert [each["type"] for each in await events(context) if each["type"] == "server_online"] == told


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"name": "OTHER"}, 409, "server_name_taken"),
        ({"public_address": "OTHER.example.org"}, 409, "server_address_taken"),
        ({"public_address": "http://x/"}, 422, "bad_address"),
        ({"name": "   "}, 422, "bad_name"),
        ({"tags": ["a,b"]}, 422, "bad_tags"),
        ({"tags": [""]}, 422, "bad_tags"),
        ({"mode": "off"}, 422, "bad_mode"),
        ({"notes": "\x1b[2J"}, 422, "control_characters"),
    ],
)
async def test_a_wrong_field_is_named_with_its_word(
    api: httpx.AsyncClient, context: Context, server: Server, change: dict[str, Any], status: int, code: str
) -> None:
    await add_server(context, "other")
    answer = await api.patch(f"{URL}/{server.id}", json=change)
    assert answer.status_code == status, answer.text
    assert [(each["field"], each["code"]) for each in answer.json()["errors"]] == [(next(iter(change)), code)]


async def test_a_server_is_found_by_words_tag_region_and_status(api: httpx.AsyncClient, context: Context) -> None:
    for name, region, tags in (("Oslo 100%", "Norway", ["eu", "fast"]), ("Bergen", "Norway", ["eu"]), ("Lima", "", [])):
        other = await add_server(context, name.partition(" ")[0])
        await api.patch(f"{URL}/{other.id}", json={"name": name, "region": region, "tags": tags})
    found = {
        str(query): [each["name"] for each in (await api.get(URL, params=query)).json()["items"]]
        for query in (
            {"tag": "fast"}, {"region": "Norway", "page_size": 1, "page": 2}, {"search": "norw"}, {"search": "%"},
            {"status": "pending", "search": "lima"}, {"status": "online"},
        )
    }  # fmt: skip
    assert list(found.values()) == [["Oslo 100%"], ["Bergen"], ["Oslo 100%", "Bergen"], ["Oslo 100%"], ["Lima"], []]
    assert (await api.get(f"{URL}/choices")).json() == {"regions": ["Norway"], "tags": ["eu", "fast"]}


async def test_it_says_why_nobody_hears_a_server(api: httpx.AsyncClient, context: Context, server: Server) -> None:
    async def reason() -> str:
        return (await api.get(f"{URL}/{server.id}")).json()["reason"]

    assert await reason() == "never_joined"
    await join(context, server, days=-1)
    assert await reason() == "credentials_expired"
    await join(context, server, days=10, revoked=True)
    assert await reason() == "revoked"
    await join(context, server)
    context.presence.now_deaf()
    assert await reason() == "broker_unreachable"
    context.presence.now_listening()
    context.presence.take(server.slug, make_beat(1))
    assert await reason() == ""
    async with context.database.write() as session:
        (await session.get_one(Server, server.id)).status = "offline"
    context.presence.set_known(set())
    assert await reason() == "no_sign_of_life"


async def test_the_last_known_figures_stay_when_nobody_is_heard(
    api: httpx.AsyncClient, context: Context, server: Server
) -> None:
    context.presence.now_listening()
    beat = make_beat(1, credentials_expire_at_ms=1_900_000_000_000, clock_offset_ms=-7, agent_uptime_s=3600)
    hostile = msgspec.structs.replace(beat.host, hostname="x\0\x1b[2J" + "y" * 9000, addresses=("z" * 9000,) * 900)
    context.presence.take(server.slug, msgspec.structs.replace(beat, host=hostile, capabilities=("c" * 999,) * 999))
    await jobs.flush_presence(context)
    context.presence.set_known(set())
    shown = (await api.get(f"{URL}/{server.id}")).json()
    assert (shown["clock_offset_ms"], shown["credentials_expire_at"][:4]) == (-7, "2030")
    assert (shown["figures"]["live"], shown["figures"]["cpu_percent"]) == (False, 12.5)
    assert shown["figures"]["agent_started_at"] < shown["last_seen_at"]
    async with context.database.read() as session:
        kept = (await session.get_one(Server, server.id)).last_beat
    assert len(msgspec.json.encode(kept)) < 20_000
    assert kept["host"]["hostname"].startswith("x[2Jy")


async def test_a_server_that_never_joined_is_deleted_at_once_with_what_is_on_it(
    api: httpx.AsyncClient, context: Context, server: Server
) -> None:
    client = await sell(api, server)
    refused = await api.delete(f"{URL}/{server.id}")
    assert (refused.status_code, refused.json()["code"]) == (409, "server_in_use")
    (inbound,) = refused.json()["inbounds"]
    assert (inbound["remark"], inbound["port"], inbound["clients_count"]) == ("reality", 8443, 1)
    done = await api.delete(f"{URL}/{server.id}", params={"with_inbounds": True})
    assert (done.status_code, done.json()["state"], done.json()["warning"]) == (200, "deleted", "")
    assert (await api.get(f"{URL}/{server.id}")).status_code == 404
    assert (await api.get(f"/api/v1/clients/{client['id']}")).json()["inbound_ids"] == []
    async with context.database.read() as session:
        assert sorted(await session.scalars(select(Tombstone.kind))) == ["inbound", "server"]
    assert (await api.post(URL, json={"name": "local"})).status_code in {422, 503}


async def test_an_away_server_stays_visibly_on_its_way_out_until_it_is_forced(
    api: httpx.AsyncClient, context: Context, server: Server
) -> None:
    await join(context, server)
    client = await sell(api, server)
    done = await api.delete(f"{URL}/{server.id}", params={"with_inbounds": True})
    assert (done.json()["state"], len(done.json()["task_ids"])) == ("retiring", 1)
    await jobs.flush_presence(context)
    shown = (await api.get(f"{URL}/{server.id}")).json()
    assert shown["retiring_at"] is not None
    assert await carried(context, server.id) == {"outbound", "settings"}
    assert await links(api, client) == []
    for answer in (
        await api.patch(f"{URL}/{server.id}", json={"name": "again"}),
        await api.post("/api/v1/inbounds", json={**REALITY, "server_id": server.id}),
    ):
        assert "server_retiring" in answer.text, answer.text
    again = await api.delete(f"{URL}/{server.id}")
    assert again.json()["state"] == "retiring"
    forced = await api.delete(f"{URL}/{server.id}", params={"force": True})
    assert (forced.json()["state"], forced.json()["warning"]) == ("deleted", removal.MAY_KEEP_RUNNING)
    told = [each for each in await events(context) if each["type"].startswith("server_")]
    assert [each["type"] for each in told] == ["server_retiring", "server_deleted"]
    assert told[-1]["details"]["forced"] is True


async def test_a_new_server_never_gets_the_id_of_a_deleted_one(
    api: httpx.AsyncClient, context: Context, server: Server
) -> None:
    async with context.database.write() as session:
        session.add(TagTotal(server_id=server.id, direction="inbound", tag="in", up_bytes=10, down_bytes=20))
    assert (await api.delete(f"{URL}/{server.id}")).json()["state"] == "deleted"
    second = await add_server(context, "second")
    assert second.id > server.id
    assert (await api.delete(f"{URL}/{second.id}")).json()["state"] == "deleted"
    assert (await add_server(context, "third")).id > second.id


async def is_gone_at(context: Context, clock: FakeClock, server: Server, seconds: float, *, counted: bool) -> bool:
    """Whether the retiring server goes when it beats with an empty spool after so many seconds more."""
    clock.advance(seconds)
    async with context.database.write() as session:
        if counted:
            (await session.get_one(LedgerCursor, (server.id, "e"))).updated_at = clock.now()
        row = await session.get_one(ServerRevision, server.id)
        point = {"wanted_revision": row.desired_revision, "wanted_digest": row.desired_digest}
    beat = make_beat(clock.now_ms(), applied_revision=row.desired_revision, **point)
    context.presence.take(server.slug, beat)
    return await removal.finish_retired(context, await service.refresh_known(context)) == 1


async def retire(context: Context, server: Server) -> None:
    """The server is on its way out and has counted something just now."""
    await join(context, server)
    await removal.delete_server(context, ADMIN, server.id)
    context.presence.now_listening()
    now = context.clock.now()
    async with context.database.write() as session:
        session.add(LedgerCursor(server_id=server.id, epoch="e", created_at=now, updated_at=now))


async def test_bytes_that_still_come_hold_up_a_retiring_server_but_not_for_ever(
    database: Database, tmp_path: Path
) -> None:
    clock = FakeClock()
    context = make_context(database, tmp_path, clock=clock)
    quiet_s = context.presence.stale_after_s
    first, second = await add_server(context, "first"), await add_server(context, "second")
    await retire(context, first)
    assert not await is_gone_at(context, clock, first, quiet_s + 1, counted=True)
    assert not await is_gone_at(context, clock, first, quiet_s - 1, counted=False)
    assert await is_gone_at(context, clock, first, 2, counted=False)
    await retire(context, second)
    assert not await is_gone_at(context, clock, second, 590, counted=True)
    assert await is_gone_at(context, clock, second, 11, counted=True)


async def test_a_retiring_server_gets_nothing_back_and_holds_up_no_other(database: Database, tmp_path: Path) -> None:
    clock = FakeClock()
    context = make_context(database, tmp_path, clock=clock)
    stuck, other = await add_server(context, "stuck"), await add_server(context, "other")
    await retire(context, stuck)
    await retire(context, other)
    version = (await history.list_versions(context, ADMIN, other.id))[0][0].id
    for change in (
        history.revert(context, ADMIN, other.id, version, history.RevertOrder()),
        adopting.adopt(context, ADMIN, other.id, adopting.StrayChoice()),
        adopting.discard(context, ADMIN, other.id, adopting.StrayChoice()),
    ):
        with pytest.raises(service.ServerRetiring):
            await change
    now = clock.now()
    async with context.database.write() as session:
        for ref, owner in ((77, stuck), (78, other)):
            session.add(
                Inbound(
                    ref=ref, server_id=owner.id, port=443, protocol="vless", config_sealed=b"", created_at=now,
                    updated_at=now,
                )
            )  # fmt: skip
        session.add(Tombstone(kind="server", key=stuck.slug, name="", server_id=stuck.id, deleted_at=now))
    assert not await is_gone_at(context, clock, stuck, 1, counted=False)
    assert not await is_gone_at(context, clock, stuck, context.presence.stale_after_s, counted=False)
    assert await is_gone_at(context, clock, other, 0, counted=False)
    async with context.database.read() as session:
        assert await session.get(Tombstone, ("inbound", "78")) is not None


async def test_a_server_deleted_meanwhile_does_not_cost_the_others_their_beats(
    context: Context, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await add_server(context, "other")
    for each in (server, other):
        context.presence.take(each.slug, make_beat(1, agent_version="7.7.7"))
    known = await service.refresh_known(context)
    await removal.delete_server(context, ADMIN, other.id, force=True)
    context.presence.set_known(set(known))
    context.presence.take(other.slug, make_beat(2, agent_version="7.7.7"))

    async def as_before(_context: Context) -> dict[str, store.Known]:
        return known

    async def broken(*_args: object) -> None:
        raise RuntimeError("the database went away")

    with monkeypatch.context() as patched:
        patched.setattr(service, "refresh_known", as_before)
        patched.setattr(store, "update_presence", broken)
        with pytest.raises(RuntimeError):
            await jobs.flush_presence(context)
        patched.undo()
        patched.setattr(service, "refresh_known", as_before)
        await jobs.flush_presence(context)
    async with context.database.read() as session:
        assert (await session.get_one(Server, server.id)).agent_version == "7.7.7"


@pytest.mark.parametrize("end", ["forced", "refused"])
async def test_the_end_of_a_server_or_of_its_tasks_settles_what_was_deleted_on_it(
    api: httpx.AsyncClient, context: Context, server: Server, end: str
) -> None:
    await join(context, server)
    client = await sell(api, server)
    await api.delete(f"/api/v1/clients/{client['id']}")
    async with context.database.read() as session:
        row = await session.get_one(ServerRevision, server.id)
        assert (await session.scalars(select(Tombstone.retiring))).all() == [True]
    if end == "forced":
        await removal.delete_server(context, ADMIN, server.id, force=True, with_inbounds=True)
    else:
        target = StatePoint(revision=row.desired_revision, digest=row.desired_digest)
        refusal = RemoteRefusal(ErrorBody(code="malformed", message="no"))
        await outcome.note_refusal(context, server.id, target, refusal, "")
    async with context.database.read() as session:
        assert not any(await session.scalars(select(Tombstone.retiring)))
