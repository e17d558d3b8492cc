"""What the panel serves of others is what was locked, and everything it names exists."""

import hashlib
import re
import tomllib
from pathlib import Path

import pytest

from xfleet_ui import STATIC_DIR, TEMPLATES_DIR, VENDOR_LOCK
from xfleet_ui.assets import Assets

LOCK = tomllib.loads(VENDOR_LOCK.read_text())["package"]
LOCKED = {name: digest for package in LOCK for name, digest in package["sha256"].items()}


@pytest.mark.parametrize("name", sorted(LOCKED))
def test_vendored_file_has_its_locked_hash(name: str) -> None:
    assert hashlib.sha256((STATIC_DIR / name).read_bytes()).hexdigest() == LOCKED[name]


def test_no_vendored_file_is_outside_the_lock() -> None:
    present = {path.relative_to(STATIC_DIR).as_posix() for path in (STATIC_DIR / "vendor").rglob("*") if path.is_file()}
    assert present <= set(LOCKED)


def test_every_vendored_package_brings_its_licence() -> None:
    for package in LOCK:
        licence = next(name for name in package["sha256"] if name.endswith("/LICENSE"))
        assert (STATIC_DIR / licence).stat().st_size > 200, package["npm"]


def test_own_files_point_only_at_files_that_exist() -> None:
    for path in [*STATIC_DIR.glob("css/*.css"), *STATIC_DIR.glob("js/*.js")]:
        text = path.read_text()
        named = re.findall(r'url\("([^"]+)"\)', text) + re.findall(r'(?:from|new URL\()\s*"(\.[^"]+)"', text)
        for name in named:
            assert (path.parent / name).is_file(), f"{path.name} names {name}"


def test_assets_are_never_fetched_from_elsewhere() -> None:
    sources = [*STATIC_DIR.glob("css/*.css"), *STATIC_DIR.glob("js/*.js"), *TEMPLATES_DIR.rglob("*.html")]
    for path in sources:
        assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", path.read_text()), path.name


def test_digest_changes_with_any_file(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("a{}")
    before = Assets(tmp_path).digest
    (tmp_path / "a.css").write_text("b{}")
    assert Assets(tmp_path).digest != before


def test_asset_outside_the_directory_cannot_be_named(tmp_path: Path) -> None:
    (tmp_path / "static").mkdir()
    (tmp_path / "secret").write_text("x")
    assert Assets(tmp_path / "static").find("../secret") is None


def test_unknown_asset_is_a_bug_not_a_dead_link() -> None:
    with pytest.raises(KeyError):
        Assets(STATIC_DIR).url_path("css/missing.css")
