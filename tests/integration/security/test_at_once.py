"""Two who change the same at the same moment, on both databases: one wins, the others are told, nothing breaks."""

import asyncio
from collections import Counter

import httpx
import pytest

from harness.controller import WEBSOCKET
from xfleet_controller.servers.models import Server

pytestmark = pytest.mark.postgres


def statuses(answers: list[httpx.Response]) -> Counter[int]:
    assert all(answer.status_code < 500 for answer in answers), [answer.text for answer in answers]
    return Counter(answer.status_code for answer in answers)


async def test_one_name_asked_for_at_once_is_given_once(api: httpx.AsyncClient) -> None:
    names = ("Twin", "twin", "TWIN", "twIn") * 3
    answers = await asyncio.gather(*(api.post("/api/v1/clients", json={"name": name}) for name in names))
    found = statuses(answers)
    assert found[201] == 1
    assert found[422] + found[409] == len(names) - 1
    assert (await api.get("/api/v1/clients")).json()["total"] == 1


async def test_one_port_asked_for_at_once_is_given_once(api: httpx.AsyncClient, server: Server) -> None:
    body = {**WEBSOCKET, "server_id": server.id}
    answers = await asyncio.gather(*(api.post("/api/v1/inbounds", json=body) for _ in range(8)))
    assert statuses(answers) == {201: 1, 422: 7}


async def test_the_second_of_two_edits_of_one_version_is_told(api: httpx.AsyncClient) -> None:
    made = (await api.post("/api/v1/clients", json={"name": "alice"})).json()
    url = f"/api/v1/clients/{made['id']}"
    edits = [{"comment": f"by {each}", "version": made["version"]} for each in range(6)]
    answers = await asyncio.gather(*(api.patch(url, json=edit) for edit in edits))
    assert statuses(answers) == {200: 1, 409: 5}
    winner = next(answer.json() for answer in answers if answer.status_code == 200)
    assert (await api.get(url)).json()["comment"] == winner["comment"]


async def test_deleting_what_others_edit_breaks_nothing(api: httpx.AsyncClient, server: Server) -> None:
    for _ in range(3):
        inbound = (await api.post("/api/v1/inbounds", json={**WEBSOCKET, "server_id": server.id})).json()
        body = {"name": "alice", "inbound_ids": [inbound["id"]]}
        client = (await api.post("/api/v1/clients", json=body)).json()
        url, door = f"/api/v1/clients/{client['id']}", f"/api/v1/inbounds/{inbound['id']}"
        answers = await asyncio.gather(
            api.patch(url, json={"comment": "x"}), api.patch(url, json={"inbound_ids": []}), api.delete(url),
            api.patch(door, json={"remark": "y"}), api.delete(door), api.delete(url), api.delete(door),
            api.post("/api/v1/clients", json={"name": "bob", "inbound_ids": [inbound["id"]]}),
            api.patch(url, json={"inbound_ids": [inbound["id"]]}), api.get(url), api.get("/api/v1/clients"),
        )  # fmt: skip
        assert set(statuses(answers)) <= {200, 201, 404, 409, 422}
        for row in (await api.get("/api/v1/clients")).json()["items"]:
            assert row["inbound_ids"] == []
            assert (await api.delete(f"/api/v1/clients/{row['id']}")).status_code == 200
        assert (await api.get("/api/v1/inbounds")).json()["total"] == 0


async def test_a_limit_moved_below_what_was_used_cuts_at_once_and_back_lifts(
    api: httpx.AsyncClient, server: Server
) -> None:
    inbound = (await api.post("/api/v1/inbounds", json={**WEBSOCKET, "server_id": server.id})).json()
    body = {"name": "alice", "inbound_ids": [inbound["id"]], "expires_at": "2001-01-01T00:00:00Z"}
    made = (await api.post("/api/v1/clients", json=body)).json()
    assert made["state"] == "expired"
    subscription = await api.get(f"/sub/{made['sub_id']}?format=plain")
    assert (subscription.status_code, subscription.text) == (200, "")
    lifted = (await api.patch(f"/api/v1/clients/{made['id']}", json={"expires_at": None})).json()
    assert (lifted["state"], len(lifted["task_ids"])) == ("active", 1)


async def test_a_disabled_inbound_keeps_its_port(api: httpx.AsyncClient, server: Server) -> None:
    body = {**WEBSOCKET, "server_id": server.id}
    first = (await api.post("/api/v1/inbounds", json={**body, "enabled": False})).json()
    taken = await api.post("/api/v1/inbounds", json=body)
    assert (taken.status_code, taken.json()["errors"][0]["code"]) == (422, "port_taken")
    assert (await api.patch(f"/api/v1/inbounds/{first['id']}", json={"enabled": True})).status_code == 200


async def test_a_subscription_nobody_has_says_nothing_more(api: httpx.AsyncClient) -> None:
    made = (await api.post("/api/v1/clients", json={"name": "alice"})).json()
    found = [
        await api.get(f"/sub/{each}") for each in ("0" * 16, made["sub_id"][:-1], made["sub_id"].upper() + "x", "%00")
    ]
    assert {answer.status_code for answer in found} <= {404, 422}
    told = [{name: value for name, value in answer.json().items() if name != "trace_id"} for answer in found[:3]]
    assert told[0] == told[1] == told[2]
    shown, looked = await api.get(f"/sub/{made['sub_id']}"), await api.head(f"/sub/{made['sub_id']}")
    assert looked.text == ""
    for name in (
        "subscription-userinfo",
        "profile-title",
        "profile-update-interval",
        "content-disposition",
        "content-type",
    ):
        assert looked.headers[name] == shown.headers[name], name
