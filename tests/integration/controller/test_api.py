"""`/api/v1` on both databases: what others rely on, and every way it says no."""

import base64
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import select

from harness.controller import REALITY, WEBSOCKET, add_server, open_api
from xfleet_contracts.desired_state import StatePoint
from xfleet_controller.audit.models import AuditRow
from xfleet_controller.clients.models import Tombstone
from xfleet_controller.context import Context
from xfleet_controller.servers.models import Server, ServerRevision
from xfleet_controller.traffic.models import ClientTotal

pytestmark = pytest.mark.postgres


async def new_inbound(api: httpx.AsyncClient, server_id: int, template: dict = REALITY, **more: object) -> dict:
    answer = await api.post("/api/v1/inbounds", json={**template, "server_id": server_id, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def new_client(api: httpx.AsyncClient, name: str = "alice", **more: object) -> dict:
    answer = await api.post("/api/v1/clients", json={"name": name, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


def problem(answer: httpx.Response, status: int, code: str) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["code"] == code
    assert body["status"] == status
    return body


async def test_a_server_shows_what_was_promised(api: httpx.AsyncClient, server: Server) -> None:
    body = (await api.get("/api/v1/servers")).json()
    assert (body["total"], body["page"], body["page_size"]) == (1, 1, 100)
    promised = {
        "id", "slug", "name", "status", "public_address", "desired_revision", "applied_revision", "xray_version",
        "last_seen_at",
    }  # fmt: skip
    assert promised <= body["items"][0].keys()
    assert (await api.get(f"/api/v1/servers/{server.id}")).json()["slug"] == "local"


async def test_allowing_private_destinations_changes_the_state_and_a_new_name_does_not(
    api: httpx.AsyncClient, server: Server
) -> None:
    url = f"/api/v1/servers/{server.id}"
    named = (await api.patch(url, json={"name": "Frankfurt", "tags": ["eu"], "notes": "x"})).json()
    assert (named["name"], named["task_ids"]) == ("Frankfurt", [])
    allowed = (await api.patch(url, json={"allow_private_destinations": True})).json()
    assert len(allowed["task_ids"]) == 1
    assert allowed["desired_revision"] == named["desired_revision"] + 1
    task = (await api.get(f"/api/v1/tasks/{allowed['task_ids'][0]}")).json()
    assert (task["status"], task["operation"], task["server_id"]) == ("pending", "edit_server", server.id)


async def test_what_only_the_server_can_know_is_generated(api: httpx.AsyncClient, server: Server) -> None:
    made = await new_inbound(api, server.id)
    reality = made["stream_settings"]["realitySettings"]
    assert len(reality["privateKey"]) == 43
    assert reality["shortIds"]
    assert made["settings"]["decryption"] == "none"
    assert made["task_ids"]


async def test_a_client_gets_links_and_a_subscription_that_say_the_same(api: httpx.AsyncClient, server: Server) -> None:
    inbounds = [(await new_inbound(api, server.id))["id"], (await new_inbound(api, server.id, WEBSOCKET))["id"]]
    made = await new_client(api, inbound_ids=inbounds, total_bytes=5_000_000, comment="first")
    assert [link.split("@")[1].split("?")[0] for link in made["links"]] == [
        "vpn.example.org:8443",
        "vpn.example.org:8080",
    ]
    assert "flow=xtls-rprx-vision" in made["links"][0]
    assert "flow" not in made["links"][1]
    assert made["subscription_url"] == f"http://panel.test/sub/{made['sub_id']}"
    assert (made["state"], made["online"], made["up_bytes"], made["down_bytes"]) == ("active", False, 0, 0)
    plain = await api.get(made["subscription_url"], params={"format": "plain"})
    assert plain.text.split() == made["links"]
    encoded = await api.get(made["subscription_url"])
    assert base64.b64decode(encoded.text).decode() == plain.text
    assert encoded.headers["subscription-userinfo"] == "upload=0; download=0; total=5000000"
    head = await api.head(made["subscription_url"])
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["profile-update-interval"] == "12"


async def test_who_may_not_connect_gets_an_honest_empty_subscription(api: httpx.AsyncClient, server: Server) -> None:
    inbound = await new_inbound(api, server.id)
    made = await new_client(api, inbound_ids=[inbound["id"]])
    await api.patch(f"/api/v1/clients/{made['id']}", json={"enabled": False})
    answer = await api.get(made["subscription_url"])
    assert (answer.status_code, answer.text) == (200, "")
    assert "subscription-userinfo" in answer.headers
    assert (await api.get("/sub/nobody")).status_code == 404


async def test_bytes_of_the_ledger_are_what_the_client_shows(
    api: httpx.AsyncClient, server: Server, context: Context
) -> None:
    made = await new_client(api)
    async with context.database.write() as session:
        row = await session.scalar(select(AuditRow).where(AuditRow.action == "add_client"))
        assert row is not None
        from xfleet_controller.clients.models import Client

        client = await session.get_one(Client, made["id"])
        session.add(
            ClientTotal(
                client_ref=client.ref, up_bytes=30, down_bytes=70, period_up_bytes=3, period_down_bytes=7,
                last_online_at=datetime.now(UTC),
            )
        )  # fmt: skip
    shown = (await api.get(f"/api/v1/clients/{made['id']}")).json()
    assert (shown["up_bytes"], shown["down_bytes"]) == (3, 7)
    assert (shown["all_time_up_bytes"], shown["all_time_down_bytes"], shown["online"]) == (30, 70, True)


async def test_an_edit_that_changes_nothing_bothers_no_server(api: httpx.AsyncClient, server: Server) -> None:
    inbound = await new_inbound(api, server.id)
    made = await new_client(api, inbound_ids=[inbound["id"]])
    same = (await api.patch(f"/api/v1/clients/{made['id']}", json={"comment": "new words"})).json()
    assert same["task_ids"] == []
    assert (await api.patch(f"/api/v1/clients/{made['id']}", json={"enabled": False})).json()["task_ids"]


async def test_a_client_moves_between_servers_and_both_hear_of_it(
    api: httpx.AsyncClient, server: Server, context: Context
) -> None:
    other = await add_server(context, "second")
    first, second = await new_inbound(api, server.id), await new_inbound(api, other.id)
    made = await new_client(api, inbound_ids=[first["id"]])
    moved = (await api.patch(f"/api/v1/clients/{made['id']}", json={"inbound_ids": [second["id"]]})).json()
    assert len(moved["task_ids"]) == 2
    assert moved["inbound_ids"] == [second["id"]]
    back = (await api.patch(f"/api/v1/clients/{made['id']}", json={"inbound_ids": [first["id"], second["id"]]})).json()
    assert len(back["task_ids"]) == 1
    assert back["links"][1] == moved["links"][0]


async def test_deleting_is_retiring_until_the_server_has_acknowledged(
    api: httpx.AsyncClient, server: Server, context: Context
) -> None:
    inbound = await new_inbound(api, server.id)
    made = await new_client(api, inbound_ids=[inbound["id"]])
    gone = await api.delete(f"/api/v1/clients/{made['id']}")
    assert (gone.status_code, len(gone.json()["task_ids"])) == (200, 1)
    problem(await api.get(f"/api/v1/clients/{made['id']}"), 404, "not_found")
    async with context.database.read() as session:
        tombstone = await session.scalar(select(Tombstone).where(Tombstone.kind == "client"))
        assert tombstone is not None
        assert tombstone.retiring
        row = await session.get_one(ServerRevision, server.id)
    from harness.controller import ADMIN
    from xfleet_contracts.apply import ApplyReport
    from xfleet_controller.servers import outcome

    point = StatePoint(revision=row.desired_revision, digest=row.desired_digest)
    report = ApplyReport(point=point, applied_revision=point.revision)
    async with context.database.write() as session:
        await outcome.note_report(session, server.id, "local", report, "x", context.clock.now())
    async with context.database.read() as session:
        settled = await session.get_one(Tombstone, ("client", tombstone.key))
        assert not settled.retiring
    assert ADMIN.name == "admin"
    assert (await api.get(f"/api/v1/tasks/{gone.json()['task_ids'][0]}")).json()["status"] == "completed"


async def test_lists_are_paged_searched_and_filtered(api: httpx.AsyncClient, server: Server) -> None:
    for name in ("anna", "bert", "carla"):
        await new_client(api, name)
    await new_client(api, "dora", enabled=False)
    await new_client(api, "emil", expires_at=(datetime.now(UTC) - timedelta(days=1)).isoformat())
    await new_client(api, "fritz", expires_at=(datetime.now(UTC) + timedelta(days=1)).isoformat())
    page = (await api.get("/api/v1/clients", params={"page": 2, "page_size": 2, "sort": "name"})).json()
    assert ([each["name"] for each in page["items"]], page["total"]) == (["carla", "dora"], 6)
    for state, names in {
        "active": ["anna", "bert", "carla"], "disabled": ["dora"], "expired": ["emil"], "expiring": ["fritz"],
        "depleted": [],
    }.items():  # fmt: skip
        found = (await api.get("/api/v1/clients", params={"state": state})).json()
        assert [each["name"] for each in found["items"]] == names
        assert all(each["state"] == state for each in found["items"])
    assert (await api.get("/api/v1/clients", params={"search": "ERT"})).json()["total"] == 1


async def test_two_admins_do_not_overwrite_each_other_unseen(api: httpx.AsyncClient, server: Server) -> None:
    made = await new_client(api)
    url = f"/api/v1/clients/{made['id']}"
    first = await api.patch(url, json={"comment": "mine", "version": made["version"]})
    assert first.status_code == 200
    body = problem(await api.patch(url, json={"comment": "yours", "version": made["version"]}), 409, "edited_meanwhile")
    assert body["version"] == made["version"] + 1
    assert body["changed"] == {"comment": {"theirs": "mine", "yours": "yours"}}
    assert (await api.get(url)).json()["comment"] == "mine"
    inbound = await new_inbound(api, server.id)
    url = f"/api/v1/inbounds/{inbound['id']}"
    stale = {"remark": "x", "port": inbound["port"], "version": inbound["version"] + 5}
    refused = problem(await api.patch(url, json=stale), 409, "edited_meanwhile")
    assert refused["changed"] == {"remark": {"theirs": inbound["remark"], "yours": "x"}}
    header = {"if-match": f'"{inbound["version"]}"'}
    assert (await api.patch(url, json={"remark": "x"}, headers=header)).status_code == 200
    problem(await api.patch(url, json={"remark": "y"}, headers=header), 409, "edited_meanwhile")
    problem(await api.patch(url, json={"remark": "y"}, headers={"if-match": "later"}), 422, "invalid")


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({}, "name", "required"),
        ({"name": "a b"}, "name", "bad_name"),
        ({"name": "a/b"}, "name", "bad_name"),
        ({"name": "a\u0007"}, "name", "bad_name"),
        ({"name": ""}, "name", "bad_name"),
        ({"name": "x", "total_bytes": -1}, "total_bytes", "out_of_range"),
        ({"name": "x", "total_bytes": "many"}, "total_bytes", "invalid"),
        ({"name": "x", "expires_at": "2026-01-01T00:00:00"}, "expires_at", "no_zone"),
        ({"name": "x", "expires_at": "soon"}, "expires_at", "invalid"),
        ({"name": "x", "inbound_ids": [99]}, "inbound_ids", "not_found"),
        ({"name": "x", "nmae": "y"}, "nmae", "unknown_field"),
        ({"name": "x", "total_bytes": "5000"}, "total_bytes", "invalid"),
        ({"name": "x", "total_bytes": True}, "total_bytes", "invalid"),
        ({"name": "x", "enabled": "true"}, "enabled", "invalid"),
        ({"name": "x", "enabled": 1}, "enabled", "invalid"),
        ({"name": "x", "inbound_ids": ["1"]}, "inbound_ids[0]", "invalid"),
        ({"name": 7}, "name", "invalid"),
    ],
)
async def test_a_wrong_client_is_refused_by_field_and_reason(
    api: httpx.AsyncClient, body: dict, field: str, code: str
) -> None:
    refused = problem(await api.post("/api/v1/clients", json=body), 422, "invalid")
    assert [(each["field"], each["code"]) for each in refused["errors"]] == [(field, code)]
    assert refused["errors"][0]["reason"]
    assert (await api.get("/api/v1/clients")).json()["total"] == 0


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"port": 70000}, "port", None),
        ({"port": 0}, "port", None),
        ({"port": "443"}, "port", "invalid"),
        ({"server_id": 99}, "server_id", "not_found"),
        ({"protocol": "carrier-pigeon"}, "protocol", None),
        (
            {"stream_settings": {"network": "ws", "wsSettings": {"path": "no-slash"}}},
            "stream_settings.wsSettings.path",
            None,
        ),
        ({"settings": {"decrypton": "none"}}, "settings.decrypton", "unknown_key"),
        ({"strem_settings": {}}, "strem_settings", "unknown_field"),
    ],
)
async def test_a_wrong_inbound_is_refused_with_the_path(
    api: httpx.AsyncClient, server: Server, change: dict, field: str, code: str | None
) -> None:
    answer = await api.post("/api/v1/inbounds", json={**WEBSOCKET, "server_id": server.id, **change})
    refused = problem(answer, 422, "invalid")
    first = refused["errors"][0]
    assert first["field"] == field
    assert code in (None, first["code"])
    assert (await api.get("/api/v1/inbounds")).json()["total"] == 0


async def test_a_taken_port_names_the_other_inbound(api: httpx.AsyncClient, server: Server, context: Context) -> None:
    await new_inbound(api, server.id)
    refused = problem(await api.post("/api/v1/inbounds", json={**REALITY, "server_id": server.id}), 422, "invalid")
    assert refused["errors"] == [
        {"field": "port", "reason": "Port 8443 is already used by the inbound reality.", "code": "port_taken"}
    ]
    other = await add_server(context, "second")
    await new_inbound(api, other.id)


async def test_a_taken_name_is_refused_in_any_case(api: httpx.AsyncClient) -> None:
    await new_client(api, "Alice")
    refused = problem(await api.post("/api/v1/clients", json={"name": "aLICE"}), 422, "invalid")
    assert refused["errors"][0]["code"] == "name_taken"


async def test_an_edited_inbound_moves_the_flow_of_its_clients(api: httpx.AsyncClient, server: Server) -> None:
    inbound = await new_inbound(api, server.id)
    made = await new_client(api, inbound_ids=[inbound["id"]])
    edited = await api.patch(
        f"/api/v1/inbounds/{inbound['id']}", json={"stream_settings": WEBSOCKET["stream_settings"], "port": 9000}
    )
    assert edited.status_code == 200, edited.text
    link = (await api.get(f"/api/v1/clients/{made['id']}")).json()["links"][0]
    assert "flow" not in link
    assert ":9000?" in link
    assert link.split("@")[0] == made["links"][0].split("@")[0]


async def test_broken_and_oversize_bodies_are_refused(api: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    problem(await api.post("/api/v1/clients", content=b"{", headers=headers), 422, "malformed")
    problem(
        await api.post("/api/v1/clients", content=b'"' + b"x" * 11_000_000 + b'"', headers=headers), 413, "too_large"
    )
    problem(await api.get("/api/v1/nothing"), 404, "not_found")
    problem(await api.put("/api/v1/clients", json={}), 405, "method_not_allowed")
    problem(await api.get("/api/v1/clients", params={"page_size": 100_000}), 422, "invalid")


async def test_everything_carries_strict_headers(api: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/api/v1/servers", "/nowhere", "/api/v1/openapi.json"):
        headers = (await api.get(path)).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


async def test_the_api_describes_itself(api: httpx.AsyncClient) -> None:
    schema = (await api.get("/api/v1/openapi.json")).json()
    assert schema["openapi"].startswith("3.1")
    paths = {"/api/v1/session", "/api/v1/clients", "/api/v1/clients/{client_id}", "/api/v1/tasks/{task_id}"}
    assert paths <= schema["paths"].keys()
    assert not any(path.startswith("/sub") for path in schema["paths"])


async def test_traffic_of_an_empty_fleet_is_nothing(api: httpx.AsyncClient) -> None:
    made = await new_client(api)
    for path in ("/api/v1/traffic", f"/api/v1/clients/{made['id']}/traffic"):
        assert (await api.get(path, params={"step": "day"})).json() == {"up_bytes": 0, "down_bytes": 0, "series": []}
    problem(await api.get("/api/v1/clients/99/traffic"), 404, "not_found")


async def test_metrics_are_for_loopback_or_the_token(context: Context) -> None:
    async with open_api(context) as near, open_api(context, address="203.0.113.9") as far:
        assert (await near.get("http://127.0.0.1:2053/metrics")).status_code == 200
        assert (await near.get("/readyz")).json() == {"database": "ok", "broker": "ok"}
        problem(await far.get("/metrics"), 403, "forbidden")


async def test_secrets_never_reach_the_audit_log(api: httpx.AsyncClient, server: Server, context: Context) -> None:
    made = await new_inbound(api, server.id)
    secret = made["stream_settings"]["realitySettings"]["privateKey"]
    async with context.database.read() as session:
        rows = (await session.scalars(select(AuditRow))).all()
    assert {"sign_in", "add_server", "add_inbound"} <= {row.action for row in rows}
    assert not any(secret in str((row.before, row.after)) for row in rows)


async def test_a_browser_sees_readable_links_and_an_app_base64(api: httpx.AsyncClient, server: Server) -> None:
    inbound = await new_inbound(api, server.id)
    made = await new_client(api, inbound_ids=[inbound["id"]])
    page = await api.get(made["subscription_url"], headers={"accept": "text/html,*/*"})
    assert page.text.split() == made["links"]
    assert page.headers["content-disposition"] == "inline"
    app = await api.get(made["subscription_url"], headers={"user-agent": "v2rayNG/1.9", "accept": "*/*"})
    assert base64.b64decode(app.text).decode().split() == made["links"]
