"""Optional servers: a laptop without them skips with the reason, continuous integration fails."""

from typing import NoReturn

import pytest


def is_missing(config: pytest.Config, reason: str) -> NoReturn:
    """Skips the test with this reason; fails it under `--require-real`."""
    if config.getoption("--require-real"):
        pytest.fail(f"{reason} (required by --require-real)", pytrace=False)
    pytest.skip(reason)
