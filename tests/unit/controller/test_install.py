"""What `/install/` hands out: wheels made again from what is installed, whole sets, a script that names them."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

from xfleet_controller.install import closure, repack
from xfleet_controller.install.library import Library, find_pip
from xfleet_controller.install.script import render_script
from xfleet_controller.install.wheels import WheelFile, choose_set, find_wheel, fitness

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    library = Library(tmp_path_factory.mktemp("install"))
    library.refresh()
    return library


def wheel(name: str) -> str:
    return f"{name}.whl"


@pytest.mark.parametrize(
    ("name", "python", "machine", "fits"),
    [
        ("a-1-py3-none-any", "3.11", "x86_64", True),
        ("a-1-py2.py3-none-any", "3.14", "aarch64", True),
        ("a-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", "3.11", "x86_64", True),
        ("a-1-cp311-cp311-manylinux_2_17_x86_64", "3.12", "x86_64", False),
        ("a-1-cp311-cp311-manylinux_2_17_aarch64", "3.11", "x86_64", False),
        ("a-1-cp39-abi3-manylinux_2_28_x86_64", "3.13", "x86_64", True),
        ("a-1-cp315-abi3.abi3t-manylinux_2_28_x86_64", "3.13", "x86_64", False),
        ("a-1-cp313-cp313t-manylinux_2_28_x86_64", "3.13", "x86_64", False),
        ("a-1-cp311-cp311-musllinux_1_2_x86_64", "3.11", "x86_64", False),
        ("a-1-cp311-cp311-macosx_11_0_arm64", "3.11", "aarch64", False),
        ("a-1-1-cp311-cp311-linux_x86_64", "3.11", "x86_64", True),
    ],
    ids=str,
)
def test_a_wheel_suits_what_its_name_says(name: str, python: str, machine: str, fits: bool) -> None:
    found = find_wheel(Path(wheel(name)))
    assert found is not None
    assert bool(fitness(found, python, machine)) is fits


def test_a_set_is_whole_or_none_and_prefers_the_first_shelf() -> None:
    first = [find_wheel(Path("a-2-py3-none-any.whl"))]
    second = [find_wheel(Path("a-1-py3-none-any.whl")), find_wheel(Path("b-1-cp311-cp311-manylinux_2_17_x86_64.whl"))]
    shelves = [[each for each in shelf if each is not None] for shelf in (first, second)]
    chosen = choose_set(shelves, ("a", "b"), "3.11", "x86_64")
    assert [each.path.name for each in chosen or ()] == [first[0].path.name, second[1].path.name]  # type: ignore[union-attr]
    assert choose_set(shelves, ("a", "b"), "3.12", "x86_64") is None


def test_the_same_installation_gives_the_same_wheel(tmp_path: Path) -> None:
    sums = set()
    for name in ("one", "two"):
        place = tmp_path / name
        place.mkdir()
        for project, packages in ((closure.OURS, closure.packages()), ("click", ()), ("psutil", ())):
            made = repack.repack(distribution(project), packages, place)
            sums.add((project, hashlib.sha256(made.read_bytes()).hexdigest()))
    assert len(sums) == 3


def test_our_own_wheel_is_whole_even_from_a_source_tree(library: Library) -> None:
    assert library.wheel is not None
    names = set(zipfile.ZipFile(library.wheel.path).namelist())
    for wanted in (
        "xfleet_agent/main.py", "xfleet_agent/launch.py",
        "xfleet_contracts/commands.py", "xfleet_xraykit/pb/__init__.py",
        "xfleet_controller/install/agent.sh", "xfleet_nats/server.conf.template",
        f"xfleet-{library.version}.dist-info/entry_points.txt", f"xfleet-{library.version}.dist-info/RECORD",
    ):  # fmt: skip
        assert wanted in names, wanted
    assert not any(
        "__pycache__" in name or name.endswith(".pth") or name.startswith("/") or ".." in name for name in names
    )


def test_the_set_of_this_machine_installs_without_an_index_and_its_agent_imports(
    library: Library, tmp_path: Path
) -> None:
    pip = find_pip()
    if pip is None:
        pytest.skip("this Python came without pip")
    key = f"{sys.version_info[0]}.{sys.version_info[1]}-{os.uname().machine}"
    assert library.wheel is not None
    listed = tmp_path / "requirements.txt"
    files = [library.wheel, *(each for each in library.sets[key] if not each.name.startswith("pip-"))]
    listed.write_text("".join(f"{each.path.as_uri()} --hash=sha256:{each.sha256}\n" for each in files))
    environment = {"PYTHONPATH": str(pip), "PIP_CONFIG_FILE": os.devnull, "PATH": os.environ["PATH"]}
    target = tmp_path / "site"
    install = ["install", "--quiet", "--no-index", "--require-hashes", "--no-compile", "--target", str(target)]
    subprocess.run(
        [sys.executable, "-m", "pip", "--isolated", *install, "-r", str(listed)], env=environment, check=True
    )
    asked = f"import sys; sys.path[:0] = [{str(target)!r}]; import xfleet_agent.app as a, grpc, xray; print(a.__file__)"
    said = subprocess.run([sys.executable, "-I", "-S", "-c", asked], capture_output=True, text=True, check=True)
    assert said.stdout.startswith(str(target))


def test_the_script_is_good_shell(library: Library, tmp_path: Path) -> None:
    assert library.script is not None
    path = tmp_path / "agent.sh"
    path.write_bytes(library.script.content)
    assert re.search(rb"@[A-Z]+@", library.script.content) is None
    for shell in ("dash", "bash", "sh"):
        if shutil.which(shell):
            subprocess.run([shell, "-n", str(path)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(path)], check=True)


def test_a_script_that_was_cut_does_nothing(library: Library, tmp_path: Path) -> None:
    assert library.script is not None
    path = tmp_path / "agent.sh"
    lines = library.script.content.splitlines(keepends=True)
    for count in (len(lines) - 1, len(lines) // 2, 40):
        path.write_bytes(b"".join(lines[:count]))
        done = subprocess.run(["sh", str(path), "--from", "x"], capture_output=True, check=False, input=b"t")
        assert b"Fetching" not in done.stdout


@pytest.mark.parametrize("name", ["a'b-1-py3-none-any.whl", "$(id)-1-py3-none-any.whl", "a b.whl", "a\nb.whl", ""])
def test_a_name_that_means_something_to_a_shell_gets_into_no_script(name: str) -> None:
    bad = WheelFile("0" * 64, 1, name, Path("x"))
    good = WheelFile("0" * 64, 1, "x-1-py3-none-any.whl", Path("x"))
    with pytest.raises(ValueError, match="script"):
        render_script("1", bad, {})
    with pytest.raises(ValueError, match="script"):
        render_script("1", good, {"3.11-x86_64": [bad]})


def test_the_pins_are_those_of_the_lock() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import build_pins; print(build_pins.render(), end='')"], cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "tools"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == closure.pinned_text(), "run: make docs"
    assert {line.partition("==")[0] for line in closure.pinned_text().splitlines()} == closure.agents_projects()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--from URL is missing"),
        (("--bogus",), "no option --bogus"),
        (("--prefix",), "needs a value"),
        (("--from", "x", "--prefix", "/"), "must be absolute"),
        (("--from", "x", "--prefix", "/a b"), "cannot use"),
        (("--from", "x", "--state-dir", "/a/../b"), "cannot use"),
        (("--from", "x", "--no-service", "--python", "/nonexistent"), "not a CPython"),
        (
            ("--from", "http://127.0.0.1:1", "--no-service", "--prefix", "PLACE", "--state-dir", "PLACE/s"),
            "Cannot fetch",
        ),
    ],
    ids=["nothing", "unknown", "no-value", "root", "space", "dots", "python", "unreachable"],
)
def test_what_cannot_work_is_one_clear_line(
    library: Library, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    assert library.script is not None
    path = tmp_path / "agent.sh"
    path.write_bytes(library.script.content)
    words = [word.replace("PLACE", str(tmp_path / "p")) for word in arguments]
    done = subprocess.run(["sh", str(path), *words], input="token", capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become the agent's account")
def test_root_follows_no_link_that_the_agents_account_planted(library: Library) -> None:
    assert library.script is not None
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        place.chmod(0o755)
        victim, file = place / "etc", place / "secret"
        victim.mkdir()
        file.write_text("root's")
        file.chmod(0o600)
        prefix, state = place / "opt", place / "state"
        text = library.script.content.decode().replace("ACCOUNT=xfleet-agent", "ACCOUNT=daemon")
        words = f"--prefix {prefix} --state-dir {state}"
        text = text.removesuffix('main "$@"\n') + f"parse {words}\nmake_places\n"

        def run(more: str = "") -> subprocess.CompletedProcess[str]:
            return subprocess.run(["sh", "-c", text + more], capture_output=True, text=True, check=False)

        assert run().returncode == 0
        daemon = prefix.stat().st_uid
        assert (daemon, (prefix / "releases").stat().st_uid, state.stat().st_uid) == (daemon,) * 3 != (0, 0, 0)
        assert (prefix.stat().st_mode & 0o777, state.stat().st_mode & 0o777) == (0o755, 0o700)
        (state / "joined-with").symlink_to(file)
        (prefix / "link").symlink_to(victim)
        for more in (
            'printf x | write "$state/joined-with"\n', 'as_account cat "$state/joined-with"\n',
            'as_account rm -rf "$prefix/link/"* "$prefix/link/."\n', "point link/current releases/1\n",
        ):  # fmt: skip
            done = run(more)
            assert (done.returncode != 0, done.stdout) == (True, ""), more
        assert (file.read_text(), file.stat().st_uid, victim.stat().st_uid) == ("root's", 0, 0)
        assert list(victim.iterdir()) == []
        (prefix / "releases").rmdir()
        (prefix / "releases").symlink_to(victim)
        assert "is a link" in run().stderr
        assert victim.stat().st_uid == 0


def test_the_script_that_was_checked_is_kept_for_uninstalling(library: Library, tmp_path: Path) -> None:
    assert library.script is not None
    path, kept = tmp_path / "agent.sh", tmp_path / "sbin" / "setup"
    text = library.script.content.decode().replace("SETUP=/usr/local/sbin/xfleet-agent-setup", f"SETUP={kept}")
    path.write_text(text.removesuffix('main "$@"\n') + "keep_setup\n")
    for _ in range(2):
        subprocess.run(["sh", str(path)], check=True)
        assert kept.read_text() == path.read_text()
        assert (kept.stat().st_mode & 0o777, list(kept.parent.iterdir())) == (0o755, [kept])
