"""What a session and its cookie are good for, and what not; who gets through which door is in test_walk.py."""

from collections.abc import AsyncIterator

import httpx
import pytest

from harness.controller import PASSWORD
from harness.hostile import stranger_of
from xfleet_controller.auth import service as auth
from xfleet_controller.context import Context


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
