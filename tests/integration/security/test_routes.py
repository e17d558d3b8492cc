"""Every handler there is, found by listing the routes: none answers a stranger, none believes a cookie alone."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest

from harness.controller import PASSWORD
from harness.hostile import list_routes, stranger_of
from xfleet_controller.auth import service as auth
from xfleet_controller.context import Context
from xfleet_controller.servers.models import Server

OPEN_TO_ALL = ("/login", "/sub/", "/install/", "/agent/v1/renew", "/healthz", "/readyz", "/static/")
SIGN_IN = {("POST", "/api/v1/session"), ("POST", "/login")}


def url_of(path: str) -> str:
    """The route with something in place of its parameters."""
    return re.sub(r"\{[^}:]+(?::(\w+))?\}", lambda found: "1" if found[1] == "int" else "x", path)


def guarded(context: Context) -> list[tuple[str, str]]:
    """Every handler that must know who asks."""
    routes = [route for route in list_routes(context) if not route[1].startswith(OPEN_TO_ALL) and route not in SIGN_IN]
    assert len(routes) > 60
    return routes


async def test_no_handler_answers_a_stranger(context: Context, server: Server) -> None:
    assert server.id == 1
    await auth.ensure_first_admin(context, PASSWORD)
    async with stranger_of(context, address="203.0.113.9") as stranger:
        for method, path in guarded(context):
            body = b'{"half' if method in {"POST", "PATCH"} and path.startswith("/api/") else None
            headers = {"content-type": "application/json"} if body else {}
            answer = await stranger.request(method, url_of(path), content=body, headers=headers)
            if path == "/metrics":
                assert answer.status_code == 403
            elif path.startswith("/api/"):
                assert answer.status_code == 401, (method, path, answer.text)
            else:
                assert answer.status_code == 303, (method, path, answer.text)
                assert answer.headers["location"].startswith("/login")


async def test_a_strangers_body_is_not_even_read(context: Context) -> None:
    await auth.ensure_first_admin(context, PASSWORD)
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(64):
            read += 1
            yield b"[" * 1024

    async with stranger_of(context, address="203.0.113.9") as stranger:
        answer = await stranger.post("/api/v1/clients", content=endless(), headers={"content-type": "application/json"})
    assert (answer.status_code, read) == (401, 0)


async def test_no_change_believes_a_cookie_without_the_token_of_its_session(
    context: Context, browser: httpx.AsyncClient, server: Server
) -> None:
    assert server.id == 1
    changes = [(method, path) for method, path in guarded(context) if method not in {"GET", "HEAD"}]
    assert len(changes) > 20
    del browser.headers["x-csrf-token"]
    other = await auth.sign_in(context, "admin", PASSWORD, address="127.0.0.1", kind="cookie")
    for headers in ({}, {"x-csrf-token": other.actor.csrf_token}, {"x-http-method-override": "GET"}):
        for method, path in changes:
            body = {"name": "x", "server_id": 1, "port": 1, "protocol": "x"} if path.startswith("/api/") else None
            answer = await browser.request(method, url_of(path), json=body, headers=headers)
            assert answer.status_code == 403, (method, path, answer.status_code)


async def test_looking_never_changes_anything(browser: httpx.AsyncClient) -> None:
    for path in ("/logout", "/clients/1/delete", "/clients/1/enable", "/settings/bot-code"):
        assert (await browser.get(path)).status_code in {404, 405}
        assert (await browser.get(path, headers={"x-http-method-override": "POST"})).status_code in {404, 405}
        assert (await browser.get(f"{path}?_method=POST")).status_code in {404, 405}
    assert (await browser.get("/clients")).status_code == 200


@pytest.mark.parametrize("kind", ["cookie", "bearer"])
async def test_a_token_works_only_the_way_it_was_given(context: Context, kind: str) -> None:
    await auth.ensure_first_admin(context, PASSWORD)
    made = await auth.sign_in(context, "admin", PASSWORD, address="127.0.0.1", kind=kind)
    async with stranger_of(context) as client:
        cookie = await client.get("/api/v1/session", headers={"cookie": f"{auth.COOKIE}={made.token}"})
        bearer = await client.get("/api/v1/session", headers={"authorization": f"Bearer {made.token}"})
        both = await client.get(
            "/api/v1/session", headers={"authorization": "Bearer x", "cookie": f"{auth.COOKIE}={made.token}"}
        )
    assert (cookie.status_code, bearer.status_code) == ((200, 401) if kind == "cookie" else (401, 200))
    assert both.status_code == 401


async def test_signing_in_never_takes_over_a_token_the_browser_came_with(context: Context) -> None:
    await auth.ensure_first_admin(context, PASSWORD)
    async with stranger_of(context) as client:
        client.cookies.set(auth.COOKIE, "planted", domain="panel.test", path="/")
        answer = await client.post("/login", data={"username": "admin", "password": PASSWORD})
    assert answer.status_code == 303
    assert "planted" not in answer.headers["set-cookie"]


async def test_an_ended_session_ends_in_the_browser_and_on_the_server(
    browser: httpx.AsyncClient, context: Context
) -> None:
    token = next(iter(browser.cookies.jar)).value
    assert (await browser.post("/logout")).status_code == 303
    async with stranger_of(context) as client:
        answer = await client.get("/clients", headers={"cookie": f"{auth.COOKIE}={token}"})
    assert answer.status_code == 303
