"""Setups: versions and geo files on disk, the last few kept, those in use always."""

import os
from pathlib import Path

import pytest

from xfleet_agent.setups import KEPT_VERSIONS, Setup, Setups, source_name
from xfleet_contracts.installs import BUNDLED
from xfleet_xraykit.launcher import BinaryLauncher, Launcher, WheelLauncher


def wheel(assets: Path | None) -> Launcher:
    return WheelLauncher(assets=assets)


@pytest.fixture
def setups(tmp_path: Path) -> Setups:
    return Setups(tmp_path, wheel)


def put(setups: Setups, version: str, digest: str = "ab" * 32, *, used_at_s: int = 0, geo: bytes = b"") -> str:
    directory = setups.new_program()
    (directory / "xray").write_text("#!/bin/sh")
    if geo:
        (directory / "geoip.dat").write_bytes(geo)
    source = source_name(version, digest)
    setups.keep_program(directory, source)
    place = setups.launcher(Setup(source=source))
    assert isinstance(place, BinaryLauncher)
    os.utime(setups._programs / source, (used_at_s, used_at_s))
    return source


def test_the_last_few_versions_are_kept_and_those_in_use_always(setups: Setups) -> None:
    sources = [put(setups, f"1.0.{number}", used_at_s=1000 + number) for number in range(6)]
    setups.prune(Setup(source=sources[0]))
    assert setups.sources() == [sources[5], sources[4], sources[3], sources[0]]
    assert len(setups.sources()) == KEPT_VERSIONS + 1
    assert setups.versions() == (BUNDLED, "1.0.5", "1.0.4", "1.0.3", "1.0.0")


def test_a_version_is_found_by_name_and_by_archive(setups: Setups) -> None:
    old = put(setups, "1.0", "aa" * 32, used_at_s=1)
    new = put(setups, "1.0", "bb" * 32, used_at_s=2)
    assert setups.find_source("1.0") == new
    assert setups.find_source("1.0", "AA" * 32) == old
    assert setups.find_source("1.0", "cc" * 32) is None
    assert setups.find_source("1") is None
    assert setups.find_source(BUNDLED) == BUNDLED


def test_a_program_that_was_removed_by_hand_is_missed(setups: Setups) -> None:
    source = put(setups, "1.0")
    (setups._programs / source / "xray").unlink()
    assert setups.launcher(Setup(source=source)) is None
    assert setups.sources() == []


def test_a_new_set_of_geo_files_holds_the_old_ones_and_leaves_them_alone(setups: Setups, tmp_path: Path) -> None:
    source = put(setups, "1.0", geo=b"from the release")
    (tmp_path / "new").write_bytes(b"fetched")
    first = Setup(source=source, geo=setups.new_geo(Setup(source=source), {"geosite.dat": tmp_path / "new"}))
    assert {name: path.read_bytes() for name, path in setups.geo_files(first).items()} == {
        "geoip.dat": b"from the release",
        "geosite.dat": b"fetched",
    }
    (tmp_path / "newer").write_bytes(b"fetched later")
    second = Setup(source=source, geo=setups.new_geo(first, {"geosite.dat": tmp_path / "newer"}))
    assert setups.geo_files(first)["geosite.dat"].read_bytes() == b"fetched"
    assert setups.geo_files(second)["geosite.dat"].read_bytes() == b"fetched later"
    setups.prune(second)
    assert setups.geo_path(first) is None
    assert setups.geo_files(second)["geoip.dat"].read_bytes() == b"from the release"


def test_what_an_interrupted_order_left_is_thrown_away(setups: Setups) -> None:
    source = put(setups, "1.0")
    setups.incoming().write_text("half")
    (setups.new_program() / "xray").write_text("half")
    setups.clear_incoming()
    assert setups.sources() == [source]
    assert not list(setups._incoming.glob("*"))
    assert [each.name for each in setups._programs.iterdir()] == [source]
