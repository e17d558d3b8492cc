"""One browser and one gallery for all panel tests."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from harness.browser import running_chromium
from harness.gallery import running_gallery


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def gallery() -> Iterator[str]:
    with running_gallery() as base_url:
        yield base_url
