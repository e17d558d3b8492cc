"""Both databases, and a ledger on them."""

import pytest

from harness.ledger import INBOUND, ONE, OTHER_INBOUND, TWO, LedgerBench
from harness.postgres import database, database_url, postgres_server, postgres_template, postgres_url
from xfleet_controller.db import Database

__all__ = ["bench", "database", "database_url", "postgres_server", "postgres_template", "postgres_url"]


@pytest.fixture
async def bench(database: Database) -> LedgerBench:
    """A ledger for two servers with an inbound each, and two clients on both."""
    made = LedgerBench(database)
    await made.add_server("srv1", [INBOUND])
    await made.add_server("srv2", [OTHER_INBOUND])
    await made.add_clients(ONE, TWO, inbounds=[INBOUND, OTHER_INBOUND])
    return made
