"""Logs stay bounded while their writers keep them open."""

import asyncio
import contextlib
import os
from pathlib import Path

from harness.broker import eventually
from xfleet_cli.up.logs import generation, keep_bounded, open_log, rotate


def test_a_large_log_moves_aside_and_its_writer_goes_on_at_the_top(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    writer = open_log(log)
    for number in range(1, 6):
        os.write(writer, f"{number}".encode() * 100)
        assert rotate(log, most_bytes=50, generations_count=3)
    os.write(writer, b"last")
    os.close(writer)
    assert log.read_bytes() == b"last"
    assert [generation(log, number).read_bytes()[:1] for number in (1, 2, 3)] == [b"5", b"4", b"3"]
    assert not generation(log, 4).exists()
    assert generation(log, 1).stat().st_mode & 0o777 == 0o600


def test_a_small_or_missing_log_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert not rotate(log, most_bytes=50)
    log.write_text("small")
    assert not rotate(log, most_bytes=50)
    assert log.read_text() == "small"


def test_where_no_copy_fits_the_log_is_emptied(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(bytes(100))
    (tmp_path / ".x.log.copy").mkdir()
    with contextlib.suppress(IsADirectoryError, PermissionError):
        rotate(log, most_bytes=50)
    assert log.stat().st_size in {0, 100}


async def test_the_loop_goes_on_when_one_log_cannot_be_rotated(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.log", tmp_path / "bad.log"
    bad.mkdir()
    good.write_bytes(bytes(100))
    loop = asyncio.ensure_future(keep_bounded([bad, good], most_bytes=50, every_s=0.01))
    await eventually(lambda: good.stat().st_size == 0 and generation(good, 1).exists())
    loop.cancel()
