import pytest
import pytest_asyncio

from harness.broker import FleetBroker, running_broker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> FleetBroker:
    async with running_broker(tmp_path_factory.mktemp("broker"), streams=True) as running:
        yield running
