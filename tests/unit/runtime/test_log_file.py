"""A service's own log file: short, readable by programs, and never in the way."""

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from pathlib import Path
from xfleet_runtime.log import configure_logging, get_logger
configure_logging("thing", file=Path(sys.argv[1]))
log = get_logger("x")
for number in range(int(sys.argv[2])):
    log.info("line", number=number, text="x" * 100_000)
try:
    raise ValueError("broken")
except ValueError:
    log.exception("failed")
print("went on")
"""


def ran(file: Path, count: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, str(file), str(count)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_a_log_file_is_kept_short_and_says_the_same_as_standard_error(tmp_path: Path) -> None:
    file = tmp_path / "thing.log"
    done = ran(file, 100)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    older = file.with_name("thing.log.1").read_text().splitlines()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thing.log", "thing.log.1"]
    assert file.stat().st_size < 9 * 1024 * 1024
    assert len(older) + len(lines) == 101
    assert lines[-1]["event"] == "failed"
    assert "ValueError: broken" in lines[-1]["exception"]
    assert json.loads(done.stderr.splitlines()[-1]) == lines[-1]


def test_a_log_file_that_cannot_be_written_costs_nothing_but_itself(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    done = ran(tmp_path / "taken" / "thing.log", 1)
    assert "went on" in done.stdout
    assert "Logging error" not in done.stderr
    assert len(done.stderr.splitlines()) == 2
