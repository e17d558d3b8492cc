"""Both databases, a controller's parts on them, and a client of its API."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from harness.controller import add_server, make_context, signed_in
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
    async with signed_in(context) as client:
        yield client
