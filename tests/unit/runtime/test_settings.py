"""Where settings come from, and what is refused."""

from pathlib import Path

import msgspec
import pytest

from xfleet_runtime.errors import Unusable
from xfleet_runtime.settings import load_settings


class Sample(msgspec.Struct, kw_only=True):
    port: int = 1
    place: Path = Path("/")
    loud: bool = False


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('port = 2\nplace = "/file"\nloud = true')
    environment = {"XFLEET_PORT": "3", "XFLEET_PLACE": "/env"}
    settings = load_settings(Sample, {"port": 4, "place": None}, environment=environment, file=file)
    assert (settings.port, settings.place, settings.loud) == (4, Path("/env"), True)


@pytest.mark.parametrize(
    ("environment", "text", "says"),
    [
        ({"XFLEET_PROT": "1"}, "", "Unknown setting XFLEET_PROT"),
        ({"XFLEET_PORT": "many"}, "", "wrong form"),
        ({}, "prot = 1", "Unknown setting 'prot'"),
        ({}, "port = ", "not TOML"),
    ],
)
def test_what_is_misspelt_or_broken_refuses_to_start(
    tmp_path: Path, environment: dict[str, str], text: str, says: str
) -> None:
    file = tmp_path / "s.toml"
    file.write_text(text)
    with pytest.raises(Unusable, match=says):
        load_settings(Sample, {}, environment=environment, file=file)


def test_a_siblings_setting_is_let_pass() -> None:
    assert load_settings(Sample, {}, environment={"XFLEET_OTHER": "x"}, others=frozenset({"other"})).port == 1
