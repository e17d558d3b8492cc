"""One panel for the tests of a module, and visitors of it."""

from collections.abc import Callable, Iterator

import pytest

from harness.panel import PanelWorld, running_panel
from harness.visitor import Visitor


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PanelWorld]:
    with running_panel(tmp_path_factory.mktemp("panel")) as world:
        yield world


@pytest.fixture
def stranger(panel: PanelWorld) -> Iterator[Visitor]:
    visitor = Visitor(panel.base_url)
    yield visitor
    visitor.http.close()


@pytest.fixture
def admin(stranger: Visitor) -> Visitor:
    assert stranger.sign_in().status_code == 303
    assert stranger.get("/").status_code == 200
    return stranger


@pytest.fixture
def new_visitor(panel: PanelWorld) -> Callable[[], Visitor]:
    return lambda: Visitor(panel.base_url)
