"""The whole web application with the panel's pages, in this process, for those who attack it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from litestar import Litestar

from harness.controller import PASSWORD
from xfleet_controller import edge
from xfleet_controller.auth import service as auth
from xfleet_controller.context import Context
from xfleet_controller.pages import panel_pages
from xfleet_controller.web_app import create_litestar, create_web_app

HOST = "panel.test"


def whole_app(context: Context) -> Any:
    """The application with the panel, as it is served."""
    pages = panel_pages(context)
    return create_web_app(context, pages=pages.handlers, html_error=pages.html_error)


def list_routes(context: Context) -> Iterator[tuple[str, str]]:
    """Method and path of every handler, below the base path."""
    pages = panel_pages(context)
    app: Litestar = create_litestar(context, pages=pages.handlers, html_error=pages.html_error)
    for route in app.routes:
        for handler in route.route_handlers if hasattr(route, "route_handlers") else ():
            for method in sorted(handler.http_methods - {"OPTIONS"}):
                yield method, route.path


def stranger_of(context: Context, *, address: str = "127.0.0.1", **more: Any) -> httpx.AsyncClient:
    """Somebody who has not signed in."""
    transport = httpx.ASGITransport(whole_app(context), client=(address, 40000), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}{context.settings.prefix}", **more)


@asynccontextmanager
async def open_whole_panel(context: Context) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the first admin's bearer token."""
    await auth.ensure_first_admin(context, PASSWORD)
    made = await auth.sign_in(context, "admin", PASSWORD, address="127.0.0.1")
    async with stranger_of(context) as client:
        client.headers["authorization"] = f"Bearer {made.token}"
        yield client


@asynccontextmanager
async def browser_of(context: Context) -> AsyncIterator[httpx.AsyncClient]:
    """A browser in which the first admin has signed in; it sends the token of its forms as htmx does."""
    await auth.ensure_first_admin(context, PASSWORD)
    made = await auth.sign_in(context, "admin", PASSWORD, address="127.0.0.1", kind="cookie")
    async with stranger_of(context) as client:
        client.cookies.set(edge.cookie_name(context), made.token, domain=HOST, path=context.settings.prefix or "/")
        client.headers["x-csrf-token"] = made.actor.csrf_token
        yield client
