"""A database put back to an older copy: agents send again what it no longer knows, and the sums are whole again."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from harness.ledger import INBOUND, ONE, LedgerBench, batch, epoch_of
from harness.postgres import PostgresServer
from xfleet_contracts.receipt import RECEIPT
from xfleet_controller.db import Database

E1 = epoch_of(1)


@asynccontextmanager
async def copied(bench: LedgerBench, request: pytest.FixtureRequest) -> AsyncIterator[LedgerBench]:
    """A ledger on a copy of the database as it is now; leaving it removes the copy."""
    if bench.database.is_sqlite:
        async with bench.database.engine.connect() as connection:
            await connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
        path = Path(bench.database.url.partition("///")[2])
        copy = shutil.copy2(path, path.with_name("copy.db"))
        restored = Database(f"sqlite+aiosqlite:///{copy}")
        yield LedgerBench(restored)
        await restored.close()
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = bench.database.url.partition("@/")[2].partition("?")[0]
    await bench.database.close()
    server.run(f'CREATE DATABASE "{name}_copy" TEMPLATE "{name}"')
    restored = Database(server.url(f"{name}_copy"))
    yield LedgerBench(restored)
    await restored.close()
    server.run(f'DROP DATABASE "{name}_copy" WITH (FORCE)')


async def test_a_restored_database_takes_again_what_came_after_the_copy(
    bench: LedgerBench, request: pytest.FixtureRequest
) -> None:
    batches = [batch(E1, seq, (ONE, INBOUND, 2**seq, seq)) for seq in range(1, 11)]
    await bench.take("srv1", *batches[:5])
    async with copied(bench, request) as restored:
        await bench.take("srv1", *batches[5:])
        whole = await bench.totals()
        await restored.take("srv1", batches[9])
        await restored.receipts.flush()
        assert restored.sender.of(RECEIPT)[-1].committed_through == 5
        await restored.take("srv1", *batches[3:])
        await restored.receipts.flush()
        assert restored.sender.of(RECEIPT)[-1].committed_through == 10
        assert await restored.totals() == whole
