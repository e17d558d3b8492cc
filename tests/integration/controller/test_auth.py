"""Signing in on both databases: sessions, throttling, cross-site requests, rights."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from litestar import post
from sqlalchemy import select

from harness.controller import PASSWORD, make_context, open_api
from xfleet_controller import edge
from xfleet_controller.auth import service as auth
from xfleet_controller.auth.models import Admin, Session
from xfleet_controller.auth.rights import Actor, Forbidden, authorize
from xfleet_controller.auth.throttle import TooManyTries
from xfleet_controller.context import Context
from xfleet_controller.db import Database
from xfleet_controller.edge import TheActor
from xfleet_controller.web_app import create_web_app
from xfleet_runtime.clock import FakeClock

pytestmark = pytest.mark.postgres


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def context(database: Database, tmp_path: Path, clock: FakeClock) -> Context:
    made = make_context(database, tmp_path, clock=clock)
    await auth.ensure_first_admin(made, PASSWORD)
    return made


@pytest.fixture
async def api(context: Context) -> AsyncIterator[httpx.AsyncClient]:
    async with open_api(context) as client:
        yield client


async def sign_in(api: httpx.AsyncClient, password: str = PASSWORD, name: str = "admin") -> httpx.Response:
    return await api.post("/api/v1/session", json={"username": name, "password": password})


async def test_a_session_begins_works_and_ends(api: httpx.AsyncClient) -> None:
    answer = await sign_in(api)
    assert answer.status_code == 201
    headers = {"authorization": f"Bearer {answer.json()['token']}"}
    assert (await api.get("/api/v1/session", headers=headers)).json() == {"username": "admin", "role": "owner"}
    assert (await api.delete("/api/v1/session", headers=headers)).status_code == 204
    again = await api.get("/api/v1/session", headers=headers)
    assert (again.status_code, again.json()["code"]) == (401, "not_signed_in")


async def test_the_database_holds_no_token_and_no_password(api: httpx.AsyncClient, context: Context) -> None:
    token = (await sign_in(api)).json()["token"]
    async with context.database.read() as session:
        row = (await session.scalars(select(Session))).one()
        admin = (await session.scalars(select(Admin))).one()
    assert token not in (row.token_sha256, row.user_agent)
    assert admin.password_hash.startswith("$argon2id$")


async def test_wrong_name_and_wrong_password_sound_the_same(api: httpx.AsyncClient) -> None:
    answers = [await sign_in(api, "wrong password"), await sign_in(api, "wrong password", "nobody")]
    assert [answer.status_code for answer in answers] == [401, 401]
    told = [answer.json() for answer in answers]
    for each in told:
        each.pop("trace_id", "")
    assert told[0] == told[1]


async def test_a_session_ends_by_idleness_and_by_age(context: Context, clock: FakeClock) -> None:
    made = await auth.sign_in(context, "admin", PASSWORD, address="192.0.2.1")
    for _ in range(4):
        clock.advance(6 * 86400)
        await auth.who_is(context, made.token, kind="bearer", address="192.0.2.1")
    clock.advance(6 * 86400 + 1)
    with pytest.raises(auth.NotSignedIn):
        await auth.who_is(context, made.token, kind="bearer", address="192.0.2.1")
    idle = await auth.sign_in(context, "admin", PASSWORD, address="192.0.2.1")
    clock.advance(7 * 86400 + 1)
    with pytest.raises(auth.NotSignedIn):
        await auth.who_is(context, idle.token, kind="bearer", address="192.0.2.1")


async def test_guessing_waits_longer_and_longer_but_never_locks_others_out_for_long(
    context: Context, clock: FakeClock
) -> None:
    for _ in range(12):
        with pytest.raises((auth.WrongPassword, TooManyTries)):
            await auth.sign_in(context, "admin", "guess", address="203.0.113.9")
        clock.advance(6)
    clock.advance(600)
    for _ in range(6):
        with pytest.raises((auth.WrongPassword, TooManyTries)):
            await auth.sign_in(context, "admin", "guess", address="203.0.113.9")
    with pytest.raises(TooManyTries) as refused:
        await auth.sign_in(context, "admin", PASSWORD, address="203.0.113.9")
    assert refused.value.details["retry_after_s"] > 5
    clock.advance(5)
    await auth.sign_in(context, "admin", PASSWORD, address="192.0.2.1")
    with pytest.raises(TooManyTries):
        await auth.sign_in(context, "admin", PASSWORD, address="203.0.113.9")


async def test_a_throttled_sign_in_says_when_to_try_again(api: httpx.AsyncClient) -> None:
    for _ in range(6):
        answer = await sign_in(api, "guess")
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_tries")
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_changed_password_ends_all_other_sessions(api: httpx.AsyncClient) -> None:
    tokens = [(await sign_in(api)).json()["token"] for _ in range(2)]
    mine, other = ({"authorization": f"Bearer {token}"} for token in tokens)
    body = {"current_password": "not it", "new_password": "another good one"}
    refused = await api.post("/api/v1/account/password", json=body, headers=mine)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "current_password")
    short = await api.post("/api/v1/account/password", json=body | {"new_password": "short"}, headers=mine)
    assert short.json()["errors"][0]["code"] == "too_short"
    body["current_password"] = PASSWORD
    assert (await api.post("/api/v1/account/password", json=body, headers=mine)).status_code == 204
    assert (await api.get("/api/v1/session", headers=mine)).status_code == 200
    assert (await api.get("/api/v1/session", headers=other)).status_code == 401
    assert (await sign_in(api)).status_code == 401
    assert (await sign_in(api, "another good one")).status_code == 201


async def test_sessions_can_be_seen_and_ended_one_by_one(api: httpx.AsyncClient) -> None:
    tokens = [(await sign_in(api)).json()["token"] for _ in range(2)]
    mine, other = ({"authorization": f"Bearer {token}"} for token in tokens)
    rows = (await api.get("/api/v1/account/sessions", headers=mine)).json()
    assert sorted(row["current"] for row in rows) == [False, True]
    foreign = next(row["id"] for row in rows if not row["current"])
    assert (await api.delete(f"/api/v1/account/sessions/{foreign}", headers=mine)).status_code == 204
    assert (await api.get("/api/v1/session", headers=other)).status_code == 401
    assert (await api.delete(f"/api/v1/account/sessions/{foreign}", headers=mine)).status_code == 404


async def test_a_cookie_changes_nothing_without_its_token(context: Context) -> None:
    made = await auth.sign_in(context, "admin", PASSWORD, address="127.0.0.1", kind="cookie")

    @post("/change")
    async def change(actor: TheActor) -> str:
        return actor.name

    transport = httpx.ASGITransport(create_web_app(context, pages=[change]), client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://panel.test") as browser:
        browser.cookies.set("xfleet_session", made.token)
        assert (await browser.get("/api/v1/session")).status_code == 200
        bare = await browser.post("/change")
        assert (bare.status_code, bare.json()["code"]) == (403, "csrf")
        token = auth.csrf_token_of(made.token)
        assert (await browser.post("/change", headers={"x-csrf-token": token})).status_code == 201
        assert (await browser.post("/change", data={"csrf_token": token})).status_code == 201
        for foreign in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}):
            assert (await browser.post("/change", headers={"x-csrf-token": token} | foreign)).status_code == 403
        bearer = {"authorization": f"Bearer {made.token}"}
        assert (await browser.post("/change", headers=bearer)).status_code == 401


async def test_another_site_cannot_sign_a_browser_in(api: httpx.AsyncClient) -> None:
    body = {"username": "admin", "password": PASSWORD}
    answer = await api.post("/api/v1/session", json=body, headers={"origin": "https://evil.example"})
    assert answer.status_code == 403


async def test_first_admins_made_at_once_are_one(database: Database, tmp_path: Path) -> None:
    context = make_context(database, tmp_path)
    made = await asyncio.gather(*(auth.ensure_first_admin(context, PASSWORD) for _ in range(4)), return_exceptions=True)
    assert made.count(True) == 1
    assert not await auth.ensure_first_admin(context, "something else")


@pytest.mark.parametrize(
    ("role", "allowed", "refused"),
    [
        ("owner", ["servers.write", "admins.write", "settings.write"], []),
        ("operator", ["servers.write", "clients.write"], ["admins.write", "settings.write"]),
        ("support", ["clients.write", "servers.read"], ["servers.write", "inbounds.write"]),
        ("read-only", ["clients.read", "account.write"], ["clients.write", "servers.write"]),
        ("nobody", [], ["clients.read"]),
    ],
)
def test_a_role_is_what_its_table_says(role: str, allowed: list[str], refused: list[str]) -> None:
    actor = Actor(name="x", role=role)
    for action in allowed:
        authorize(actor, action)
    for action in refused:
        with pytest.raises(Forbidden):
            authorize(actor, action)


async def test_a_role_without_rights_is_refused_at_the_service_door(api: httpx.AsyncClient, context: Context) -> None:
    headers = {"authorization": f"Bearer {(await sign_in(api)).json()['token']}"}
    async with context.database.write() as session:
        (await session.scalars(select(Admin))).one().role = "read-only"
    assert (await api.get("/api/v1/clients", headers=headers)).status_code == 200
    for path, body in (("/api/v1/clients", {"name": "x"}), ("/api/v1/servers", {"name": "x"})):
        answer = await api.post(path, json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


async def test_a_base_path_is_everywhere(database: Database, tmp_path: Path) -> None:
    context = make_context(database, tmp_path, base_path="/s3cret/")
    await auth.ensure_first_admin(context, PASSWORD)
    async with open_api(context) as api:
        token = (await sign_in(api)).json()["token"]
        api.headers["authorization"] = f"Bearer {token}"
        made = (await api.post("/api/v1/clients", json={"name": "x"})).json()
        assert made["subscription_url"].startswith("http://panel.test/s3cret/sub/")
        assert (await api.get(made["subscription_url"])).status_code == 200
        assert (await api.get("/readyz")).status_code == 200
        assert (await api.get("http://panel.test/api/v1/session")).status_code == 404
        assert (await api.get("http://panel.test/healthz")).status_code == 404
    cookie = edge.session_cookie(context, "t")
    assert (cookie["path"], cookie["httponly"], cookie["samesite"]) == ("/s3cret", True, "lax")


async def test_subscriptions_carry_the_configured_public_url(database: Database, tmp_path: Path) -> None:
    context = make_context(database, tmp_path, public_url="https://sub.example.org/x/")
    await auth.ensure_first_admin(context, PASSWORD)
    async with open_api(context) as api:
        token = (await sign_in(api)).json()["token"]
        made = await api.post("/api/v1/clients", json={"name": "x"}, headers={"authorization": f"Bearer {token}"})
        assert made.json()["subscription_url"].startswith("https://sub.example.org/x/sub/")
