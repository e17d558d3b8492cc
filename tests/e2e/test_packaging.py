"""What gets installed where: the agent's machines stay free of the panel's libraries."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCK = tomllib.loads((ROOT / "uv.lock").read_text())
PANEL_ONLY = {"sqlalchemy", "alembic", "litestar", "jinja2", "aiogram", "uvicorn", "aiohttp", "pydantic"}
PACKAGES: dict[str, dict[str, Any]] = {package["name"]: package for package in LOCK["package"]}


def closure(*extras: str) -> set[str]:
    """Names of everything that `pip install 'xfleet[extras]'` brings, from the lock."""
    project = PACKAGES["xfleet"]
    waiting = [*project.get("dependencies", [])]
    for extra in extras:
        waiting += project["optional-dependencies"][extra]
    found: set[str] = set()
    while waiting:
        wanted = waiting.pop()
        package = PACKAGES[wanted["name"]]
        for extra in wanted.get("extra", []):
            waiting += package.get("optional-dependencies", {}).get(extra, [])
        if wanted["name"] not in found:
            found.add(wanted["name"])
            waiting += package.get("dependencies", [])
    return found


def test_the_agent_installs_nothing_of_the_panel() -> None:
    assert closure("agent") & PANEL_ONLY == set()


def test_the_bot_installs_no_database_and_the_controller_no_bot() -> None:
    assert closure("bot") & {"sqlalchemy", "litestar", "grpcio"} == set()
    assert closure("controller") & {"aiogram", "grpcio"} == set()


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("xfleet_agent.main", PANEL_ONLY - {"aiohttp"}),
        ("xfleet_agent.app", PANEL_ONLY - {"aiohttp"}),
        ("xfleet_cli.main", {"sqlalchemy", "litestar", "grpc", "aiogram"}),
        ("xfleet_controller.serve", {"aiogram", "grpc"}),
        ("xfleet_bot.main", {"sqlalchemy", "litestar", "grpc"}),
    ],
)
def test_importing_a_part_loads_nothing_that_belongs_to_another(module: str, forbidden: set[str]) -> None:
    asked = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout.split()
    assert forbidden & set(loaded) == set()


def test_every_console_script_answers_help() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for name in scripts:
        outcome = subprocess.run(
            [Path(sys.executable).parent / name, "--help"], capture_output=True, text=True, check=False
        )
        assert outcome.returncode == 0, outcome.stderr
        assert "Usage:" in outcome.stdout


def test_the_wheel_holds_every_package_of_the_tree() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    in_tree = {
        str(marker.parent.relative_to(ROOT))
        for place in ("services", "libs", "deploy", "migrations", "ui")
        for marker in (ROOT / place).rglob("py.typed")
        if not re.search(r"node_modules|\.venv", str(marker))
    }
    assert set(listed["packages"]) == in_tree
