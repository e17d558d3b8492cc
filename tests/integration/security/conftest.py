"""Both databases, a controller's parts on them, and the whole web application with the panel's pages."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from harness.controller import add_server, make_context
from harness.hostile import browser_of, open_whole_panel
from harness.postgres import database, database_url, postgres_server, postgres_template, postgres_url
from xfleet_controller.context import Context
from xfleet_controller.db import Database
from xfleet_controller.servers.models import Server

__all__ = ["database", "database_url", "postgres_server", "postgres_template", "postgres_url"]


@pytest.fixture
def context(database: Database, tmp_path: Path) -> Context:
    return make_context(database, tmp_path)


@pytest.fixture
async def server(context: Context) -> Server:
    return await add_server(context)


@pytest.fixture
async def api(context: Context) -> AsyncIterator[httpx.AsyncClient]:
    """A bearer of the first admin's token."""
    async with open_whole_panel(context) as client:
        yield client


@pytest.fixture
async def browser(context: Context) -> AsyncIterator[httpx.AsyncClient]:
    """The first admin's browser: a cookie, and the token its forms carry."""
    async with browser_of(context) as client:
        yield client
