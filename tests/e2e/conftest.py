"""Fixtures of the end-to-end tests: one fleet per file, started as a newcomer starts it."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from harness.fleet import Fleet, fleet_up
from harness.xray import Sink, TlsTarget


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """A running fleet whose clients may reach loopback."""
    async with fleet_up(tmp_path_factory.mktemp("fleet")) as fleet:
        await fleet.prepare_for_loopback()
        yield fleet


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sink() -> AsyncIterator[Sink]:
    """An independent server that counts bytes."""
    async with Sink() as sink:
        yield sink


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def target() -> AsyncIterator[TlsTarget]:
    """A site for REALITY to show to strangers."""
    async with TlsTarget() as target:
        yield target
