"""Small files that must never be half written."""

import os
from pathlib import Path

import pytest

from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import lock_exclusively, private_directory, write_private


def test_a_file_is_replaced_whole_and_private(tmp_path: Path) -> None:
    file = tmp_path / "inner" / "secret"
    write_private(file, b"one")
    write_private(file, b"two")
    assert file.read_bytes() == b"two"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in file.parent.iterdir()] == ["secret"]


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    write_private(file, b"old")
    with pytest.raises(TypeError):
        write_private(file, "text is not bytes")  # type: ignore[arg-type]
    assert file.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["secret"]


def test_a_lock_has_one_holder_and_ends_with_its_descriptor(tmp_path: Path) -> None:
    first = lock_exclusively(tmp_path / "lock", owner="somebody")
    with pytest.raises(Unusable, match="somebody already runs"):
        lock_exclusively(tmp_path / "lock", owner="somebody")
    os.close(first)
    os.close(lock_exclusively(tmp_path / "lock", owner="somebody"))


def test_a_directory_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unusable, match="Cannot make the directory"):
        private_directory(tmp_path / "file" / "below")
