"""The system service, against a systemctl that only writes down what it was told; systemd itself is not run."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.process import Outcome, run, script
from harness.real import is_missing
from xfleet_cli.care.unit import Unit, quoted, render

FAKE = """#!/bin/sh
echo "$@" >> "{log}"
[ "$1" = --user ] && shift
case "$1" in
show) echo "Version=252"; echo "LoadState=loaded"; echo "UnitFileState=enabled"; echo "ActiveState=active"
      echo "SubState=running"; echo "MainPID=4242" ;;
is-active) exit 3 ;;
esac
"""


@pytest.fixture
def told(tmp_path: Path) -> Path:
    log, program = tmp_path / "told", tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(FAKE.format(log=log))
    program.chmod(0o755)
    return log


async def service(tmp_path: Path, *words: str, fake: bool = True) -> Outcome:
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}" if fake else str(tmp_path / "nowhere")
    environment = {"PATH": path, "XDG_CONFIG_HOME": str(tmp_path / "config")}
    return await run([script("xfleet"), "service", *words], environment=environment)


def test_the_unit_that_is_shipped_is_the_one_that_is_made() -> None:
    shipped = Path(__file__).parents[3] / "deploy/systemd/xfleet.service"
    made = render(Unit(program=Path("/opt/xfleet/bin/xfleet"), data_dir=Path("/var/lib/xfleet")))
    assert made == shipped.read_text(encoding="utf-8")


def test_words_reach_the_program_as_they_are() -> None:
    assert [quoted(word) for word in ("/a", "a b", "50%", "$x", 'q"')] == ["/a", '"a b"', "50%%", "$$x", '"q\\""']


@pytest.mark.parametrize(
    "unit",
    [
        Unit(program=Path("/bin/true"), data_dir=Path("/var/lib/xfleet"), options=("--public",)),
        Unit(program=Path("/bin/true"), data_dir=Path("/srv/with space"), run_as="root"),
        Unit(program=Path("/bin/true"), data_dir=Path("/home/me/x"), personal=True),
    ],
    ids=["system", "elsewhere", "personal"],
)
def test_systemd_understands_the_unit(unit: Unit, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        is_missing(pytestconfig, "systemd-analyze is not installed")
    path = tmp_path / "xfleet-test.service"
    path.write_text(render(unit))
    scope = ["--user"] if unit.personal else []
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    command = [verify, "verify", *scope, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert "xfleet-test.service:" not in done.stderr, done.stderr


async def test_install_writes_enables_and_starts_and_uninstall_takes_it_back(tmp_path: Path, told: Path) -> None:
    data, unit = tmp_path / "data", tmp_path / "config/systemd/user/xfleet.service"
    made = await service(tmp_path, "install", "--user", "--data-dir", str(data), "--panel-port", "2099")
    assert made.code == 0, made.err
    assert f"up --data-dir {data} --panel-port 2099" in unit.read_text()
    assert told.read_text().splitlines()[-3:] == [
        "--user daemon-reload",
        "--user enable xfleet.service",
        "--user start xfleet.service",
    ]
    assert "process 4242" in (await service(tmp_path, "status", "--user")).out
    gone = await service(tmp_path, "uninstall", "--user")
    assert gone.code == 0, gone.err
    assert not unit.exists()
    assert data.exists()
    assert "--user disable --now xfleet.service" in told.read_text()
    again = await service(tmp_path, "uninstall", "--user")
    assert again.code == 0
    assert "not installed" in again.out


async def test_a_dry_run_prints_the_unit_and_changes_nothing(tmp_path: Path, told: Path) -> None:
    outcome = await service(tmp_path, "install", "--user", "--dry-run", "--data-dir", str(tmp_path / "data"))
    assert outcome.out.rstrip().endswith("WantedBy=default.target")
    assert not told.exists()
    assert not (tmp_path / "config").exists()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["install", "--user", "--panel-prot", "1"], "does not take this"),
        (["install", "--user", "--bot-token", "1:a"], "Secrets do not belong in a unit"),
        (["install", "--user", "--name", "../x"], "cannot be a service's name"),
        (["install", "--name", "x", "--run-as", "no-such-account"], "no account no-such-account"),
    ],
    ids=["option", "secret", "name", "account"],
)
async def test_what_cannot_work_is_one_clear_line(tmp_path: Path, told: Path, words: list[str], says: str) -> None:
    outcome = await service(tmp_path, *words[:1], "--data-dir", str(tmp_path / "data"), *words[1:])
    assert outcome.code == 2, outcome
    assert len(outcome.error_lines) == 1
    assert says in outcome.err
    assert not (tmp_path / "config").exists()


async def test_without_systemd_it_is_said(tmp_path: Path) -> None:
    outcome = await service(tmp_path, "status", "--user", fake=False)
    assert (outcome.code, len(outcome.error_lines)) == (2, 1)
    assert "systemd does not run here" in outcome.err
