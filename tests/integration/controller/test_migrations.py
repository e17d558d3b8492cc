"""The migrations make exactly the tables that the models describe, on both databases."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from xfleet_controller.all_models import METADATA
from xfleet_controller.db import Database

pytestmark = pytest.mark.postgres


async def test_models_and_migrations_agree(database: Database) -> None:
    def difference(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), METADATA))

    async with database.engine.connect() as connection:
        assert await connection.run_sync(difference) == []
    await database.migrate()
