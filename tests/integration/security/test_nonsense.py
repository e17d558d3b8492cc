"""Nonsense is refused with a sentence: no door answers it with a 5xx, and nothing of it is saved half."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from harness.controller import REALITY, WEBSOCKET, add_server, make_beat
from xfleet_contracts.heartbeat import HostFigures, XrayState
from xfleet_controller.context import Context
from xfleet_controller.servers import jobs
from xfleet_controller.servers import service as servers
from xfleet_controller.servers.models import Server
from xfleet_controller.subscriptions.links import address_of

pytestmark = pytest.mark.postgres

HUGE = 2**63
ANY_JSON = (None, True, 0, -1, 1.5, HUGE, 10**30, "", "x" * 500, "\0", [], {}, [[]], [None], {"": None}, ["x"], [{}])
NAMES = ("\0", "a\0b", "", " ", "x" * 65, "İ" * 64, "a\u202eb", "a\nb", "a/b", "\x1b[2J", "a\u2028b")
UNUSUAL_NAMES = ("<script>alert(1)", "Алиса", "عائشة", "👍" * 30, "ß" * 64, 'a;b="c', "..", "%00", "=cmd()")


async def made_client(api: httpx.AsyncClient, name: str = "alice", **more: Any) -> dict[str, Any]:
    answer = await api.post("/api/v1/clients", json={"name": name, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def made_inbound(api: httpx.AsyncClient, server: Server, template: dict[str, Any] = REALITY) -> dict[str, Any]:
    answer = await api.post("/api/v1/inbounds", json={**template, "server_id": server.id})
    assert answer.status_code == 201, answer.text
    return answer.json()


def deep(depth: int, leaf: str = "1") -> str:
    return '{"a":' * depth + leaf + "}" * depth


async def test_numbers_that_no_database_holds_name_nothing(api: httpx.AsyncClient, browser: httpx.AsyncClient) -> None:
    for number in (0, -1, HUGE - 1, HUGE, 10**30, "9" * 5000):
        for kind in ("clients", "inbounds", "servers", "tasks"):
            for client, base in ((api, "/api/v1"), (browser, "")):
                answer = await client.get(f"{base}/{kind}/{number}")
                assert answer.status_code in {404, 405, 422}, (kind, number, answer.status_code)
        for query in ("server_id", "inbound_id", "page", "page_size", "inbound", "server"):
            for client, base in ((api, "/api/v1"), (browser, "")):
                for kind in ("clients", "tasks"):
                    answer = await client.get(f"{base}/{kind}?{query}={number}")
                    assert answer.status_code < 500, (kind, query, number)
    for query in ("page=0", "page=-1", "page=1000000000", "page_size=0", "page_size=100000", "search=%00", "sort=%00"):
        assert (await api.get(f"/api/v1/clients?{query}")).status_code < 500, query


@pytest.mark.parametrize("name", NAMES)
async def test_names_that_mislead_or_break_are_refused(
    api: httpx.AsyncClient, browser: httpx.AsyncClient, name: str
) -> None:
    answer = await api.post("/api/v1/clients", json={"name": name})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "name")
    assert (await browser.post("/clients/new", data={"name": name})).status_code == 422
    assert (await api.get("/api/v1/clients")).json()["total"] == 0


@pytest.mark.parametrize("name", UNUSUAL_NAMES)
async def test_unusual_names_are_shown_as_they_are_and_run_nowhere(
    api: httpx.AsyncClient, browser: httpx.AsyncClient, server: Server, name: str
) -> None:
    inbound = await made_inbound(api, server)
    htmx = {"hx-request": "true", "hx-target": "div#dialog-content"}
    answer = await browser.post("/clients/new", data={"name": name, "inbound_ids": str(inbound["id"])}, headers=htmx)
    assert answer.status_code == 200, answer.text
    assert answer.headers["hx-trigger"].isascii()
    made = (await api.get("/api/v1/clients")).json()["items"][0]
    assert made["name"] == name
    for path in ("/clients", f"/clients/{made['id']}", f"/clients/{made['id']}/edit", f"/clients/{made['id']}/delete"):
        page = await browser.get(path)
        assert page.status_code == 200
        assert "<script>alert" not in page.text
    subscription = await api.get(f"/sub/{made['sub_id']}")
    assert subscription.status_code == 200
    assert all(value.isascii() and "\n" not in value for value in subscription.headers.values())


def client_fields() -> Iterator[tuple[str, Any]]:
    dates = ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2020-01-01T00:00:00")
    for value in (*dates, "1969-12-31T23:59:59Z", "2020-01-01", "x", []):
        yield "expires_at", value
    for value in (-1, 2**62, HUGE, 10**30, 1.5, "x", []):
        yield "total_bytes", value
    for value in (None, [None], [HUGE], [-1], [0], [999], ["x"], [10**30], list(range(1, 10_002)), {}, "x"):
        yield "inbound_ids", value
    for field, values in {
        "name": (None, 5, [], {}), "comment": (None, "\0", "\x1b[2J", "x" * 2001, 5), "enabled": (None, "x", 5),
        "version": (None, -1, HUGE, "x", 0), "id": (5,), "sub_id": ("x",), "up_bytes": (0,), "ref": (1,),
    }.items():  # fmt: skip
        for value in values:
            yield field, value


async def test_each_field_of_a_client_refuses_what_it_cannot_be(
    api: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    before = await made_client(api)
    url = f"/api/v1/clients/{before['id']}"
    for field, value in client_fields():
        answer = await api.patch(url, json={field: value})
        assert answer.status_code in {409, 422}, (field, value, answer.text)
        assert answer.json()["code"] != "internal"
        if answer.status_code == 422:
            assert answer.json()["errors"][0]["field"].startswith(field), (field, value, answer.text)
        if field != "version":
            answer = await api.post("/api/v1/clients", json={"name": "new", field: value})
            assert answer.status_code == 422, (field, value, answer.text)
    after = (await api.get(url)).json()
    assert {key: after[key] for key in before if key in after} == {key: before[key] for key in after}
    assert (await api.get("/api/v1/clients")).json()["total"] == 1
    for field, value in {"total_bytes": None, "expires_at": None}.items():
        assert (await api.patch(url, json={field: value})).status_code == 200
    assert (await browser.get(f"/clients/{before['id']}/edit")).status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("quota", "1e1000000"), ("quota", "NaN"), ("quota", "sNaN"), ("quota", "-1"), ("quota", "9" * 5000),
        ("expires_at", "0001-01-01"), ("expires_at", "9999-12-31"), ("expires_at", "2020-02-30"),
        ("comment", "\0"), ("name", "\0"),
    ],
)  # fmt: skip
async def test_the_client_form_says_what_is_wrong_with_a_field(
    browser: httpx.AsyncClient, field: str, value: str
) -> None:
    answer = await browser.post("/clients/new", data={"name": "x", field: value})
    assert answer.status_code == 422
    assert f'id="error-{field}"' in answer.text


async def test_the_client_form_survives_ids_and_versions_that_are_none(
    api: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    made = await made_client(api)
    for value in ("9" * 5000, "99999999999999999999", "x", "-1"):
        fields = {"name": "alice", "version": value, "inbound_ids": value}
        assert (await browser.post(f"/clients/{made['id']}/edit", data=fields)).status_code < 500


async def test_each_field_of_an_inbound_takes_any_json_without_breaking(
    api: httpx.AsyncClient, browser: httpx.AsyncClient, server: Server
) -> None:
    inbound = await made_inbound(api, server, WEBSOCKET)
    client = await made_client(api, inbound_ids=[inbound["id"]])
    url = f"/api/v1/inbounds/{inbound['id']}"
    for field in ("listen", "protocol", "remark", "port", "settings", "stream_settings", "sniffing", "enabled"):
        for value in ANY_JSON:
            answer = await api.patch(url, json={field: value})
            assert answer.status_code in {200, 422}, (field, value, answer.text)
            assert (await api.post("/api/v1/inbounds", json={**REALITY, "server_id": value})).status_code == 422 or (
                value is True
            )
    for inner in ("network", "security", "method", "sockopt", "wsSettings", "realitySettings", "finalmask"):
        for value in ANY_JSON:
            stream = WEBSOCKET["stream_settings"] | {inner: value}
            answer = await api.patch(url, json={"stream_settings": stream})
            assert answer.status_code in {200, 422}, (inner, value, answer.text)
    for path in ("/inbounds", f"/inbounds/{inbound['id']}/edit", f"/clients/{client['id']}"):
        assert (await browser.get(path)).status_code == 200


@pytest.mark.parametrize("port", [0, -1, 65536, 2**31, HUGE, "x", 443.5, None])
@pytest.mark.parametrize("listen", ["", "/run/x.sock"])
async def test_ports_that_are_none_are_refused(
    api: httpx.AsyncClient, server: Server, port: object, listen: str
) -> None:
    body = {**WEBSOCKET, "server_id": server.id, "port": port, "listen": listen}
    answer = await api.post("/api/v1/inbounds", json=body)
    if (port, listen) == (0, "/run/x.sock"):
        assert answer.status_code == 201
        return
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "port")


@pytest.mark.parametrize("listen", ["256.1.1.1", "x", "127.0.0.1:80", "/" + "x" * 300, "/run/\0", "<b>", "\n"])
async def test_addresses_that_are_none_are_refused(api: httpx.AsyncClient, server: Server, listen: str) -> None:
    answer = await api.post("/api/v1/inbounds", json={**WEBSOCKET, "server_id": server.id, "listen": listen})
    if listen == "\n":
        assert answer.status_code == 201
        return
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "listen")


async def test_the_panels_own_port_is_refused_by_name(api: httpx.AsyncClient, server: Server, context: Context) -> None:
    assert server.slug == servers.LOCAL
    taken = await api.post(
        "/api/v1/inbounds", json={**WEBSOCKET, "server_id": server.id, "port": context.settings.port}
    )
    assert taken.status_code == 422
    assert "panel" in taken.json()["errors"][0]["reason"]


@pytest.mark.parametrize("depth", [33, 500, 900, 2000, 100_000])
async def test_deep_nesting_is_refused(
    api: httpx.AsyncClient, browser: httpx.AsyncClient, server: Server, depth: int
) -> None:
    head = f'{{"server_id":{server.id},"port":8080,"protocol":"vless","stream_settings":'
    for body in (
        f'{{"name":{"[" * depth}{"]" * depth}}}',
        f'{head}{{"network":"ws","wsSettings":{{"headers":{deep(depth)}}}}}}}',
        f'{head}{{"network":"ws"}},"sniffing":{deep(depth)}}}',
    ):
        path = "/api/v1/clients" if '"name"' in body else "/api/v1/inbounds"
        answer = await api.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code in {400, 413, 422}, answer.text
    fields = {"preset": "custom", "port": "8080", "server_id": str(server.id), "sniffing": deep(min(depth, 30_000))}
    assert (await browser.post("/inbounds/new", data=fields)).status_code == 422


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"{", b"\0", b'{"name":NaN}', b'{"name":"\xff"}', b'{"name":"\\ud800"}']
)
async def test_bodies_that_are_no_json_are_refused(api: httpx.AsyncClient, body: bytes) -> None:
    for method, path in (("POST", "/clients"), ("POST", "/session"), ("POST", "/inbounds")):
        answer = await api.request(method, f"/api/v1{path}", content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), answer.text


@pytest.mark.parametrize("wait", ["-1", "nan", "inf", "-inf", "1e400", "99999", "x", ""])
async def test_waiting_times_that_are_none_are_refused(api: httpx.AsyncClient, wait: str) -> None:
    answer = await api.post(f"/api/v1/clients?wait={wait}", json={"name": "x"})
    assert answer.status_code == 422
    assert (await api.get("/api/v1/clients")).json()["total"] == 0


@pytest.mark.parametrize(
    "address",
    ["1.2.3.4:5", "[:::::]", "[1]", "a:b:c", "999.1.1.1", ":", "::::", "a b", "x/y", "a@b", "-", "a..b", "\0"],
)
async def test_a_server_address_that_fits_in_no_link_is_refused(
    api: httpx.AsyncClient, server: Server, address: str
) -> None:
    answer = await api.patch(f"/api/v1/servers/{server.id}", json={"public_address": address})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "public_address")


@pytest.mark.parametrize(
    "address", ["example.org", "xn--e1afmkfd.example", "192.0.2.1", "2001:db8::1", "[2001:db8::1]"]
)
async def test_a_server_address_that_fits_is_taken(api: httpx.AsyncClient, server: Server, address: str) -> None:
    assert (await api.patch(f"/api/v1/servers/{server.id}", json={"public_address": address})).status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "a\0b"), ("name", "a\nb"), ("region", "\0"), ("region", "x" * 101), ("notes", "\0"), ("tags", ["\0"])],
)
async def test_texts_of_a_server_are_texts(api: httpx.AsyncClient, server: Server, field: str, value: object) -> None:
    answer = await api.patch(f"/api/v1/servers/{server.id}", json={field: value})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)


async def test_an_agents_nonsense_keeps_nobody_elses_presence_from_the_database(
    context: Context, server: Server
) -> None:

    other = await add_server(context, "other")
    context.presence.now_listening()
    host = HostFigures(default_address='x/"><b>@[', os="a\0b", hostname="\0" * 9)
    xray = XrayState(status="running", version="1\0", last_error="\0")
    wrong = make_beat(instance="i\0", host=host, xray=xray, applied_revision=HUGE, wanted_revision=HUGE)
    context.presence.take("local", wrong)
    context.presence.take("other", make_beat(instance="fine"))
    await jobs.flush_presence(context)
    async with context.database.read() as session:
        rows = [await session.get_one(Server, each.id) for each in (server, other)]
    assert [row.instance for row in rows] == ["i", "fine"]
    assert rows[0].reported_address == ""
    assert address_of(rows[0]) == "vpn.example.org"
