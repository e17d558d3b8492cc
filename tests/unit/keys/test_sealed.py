"""Secrets at rest open with their key, under their name, and every broken key file says what to do."""

import stat
from pathlib import Path

import msgspec
import pytest

from xfleet_runtime.errors import Unusable
from xfleet_runtime.keys.sealed import BoxUnreadableError, KeyFile


def test_a_new_key_file_is_for_its_owner_only_and_loads_again(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "key"
    sealed = KeyFile.load_or_create(path).seal("fleet", b"secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KeyFile.load_or_create(path).open("fleet", sealed) == b"secret"
    assert b"secret" not in sealed.box


def test_a_box_is_bound_to_its_record(tmp_path: Path) -> None:
    key = KeyFile.load_or_create(tmp_path / "key")
    sealed = key.seal("servers/1", b"secret")
    with pytest.raises(BoxUnreadableError):
        key.open("servers/2", sealed)
    with pytest.raises(BoxUnreadableError):
        key.open("servers/1", msgspec.structs.replace(sealed, box=sealed.box[:-1] + b"x"))
    with pytest.raises(BoxUnreadableError):
        key.open("servers/1", msgspec.structs.replace(sealed, nonce=b""))


def test_another_key_file_opens_nothing_and_says_so(tmp_path: Path) -> None:
    sealed = KeyFile.load_or_create(tmp_path / "one").seal("fleet", b"secret")
    with pytest.raises(Unusable, match=r"another key.*Use the key file that belongs"):
        KeyFile.load_or_create(tmp_path / "two").open_own("fleet", sealed)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello\n", b"xfleet-key-1 AAAA\n", b"xfleet-key-1 %%%\n", b"\xff\xfe", b"xfleet-key-2 " + b"A" * 44],
)
def test_a_broken_key_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(Unusable, match=r"broken.*Restore it from a backup") as caught:
        KeyFile.load_or_create(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


def test_a_missing_key_file_is_not_replaced_when_something_was_sealed_with_it(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="missing"):
        KeyFile.load_existing(tmp_path / "key")
    assert not (tmp_path / "key").exists()


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    KeyFile.load_or_create(path)
    path.chmod(0o644)
    with pytest.raises(Unusable, match="chmod 600"):
        KeyFile.load_or_create(path)


def test_a_directory_in_the_place_of_the_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="Cannot read"):
        KeyFile.load_or_create(tmp_path)


def test_the_key_is_not_in_the_repr(tmp_path: Path) -> None:
    assert repr(KeyFile.load_or_create(tmp_path / "key")) == f"KeyFile({tmp_path / 'key'})"
