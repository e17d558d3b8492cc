"""What every test gets: a clean environment, and no mercy for a missing server under `--require-real`."""

import os

import pytest

from xfleet_runtime.settings import PREFIX


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-real",
        action="store_true",
        help="a missing PostgreSQL, Chromium or other optional server fails its tests instead of skipping them",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The programs the tests start may keep what they compiled: some hundred starts would each compile it all anew."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests reaches them."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
