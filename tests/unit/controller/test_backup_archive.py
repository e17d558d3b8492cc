"""The archive of a backup: what goes in comes out; cut, changed or with another passphrase nothing comes out."""

import io
import tarfile
from pathlib import Path

import msgspec
import pytest

from xfleet_controller.backups import archive
from xfleet_runtime.errors import Unusable

PASSPHRASE = "a passphrase of tests"
CONTENT = bytes(range(256)) * 4000


def sealed(content: bytes = CONTENT) -> bytes:
    out = io.BytesIO()
    with archive.writing(out, PASSPHRASE, "2026-01-01T00:00:00+00:00") as tar:
        member = tarfile.TarInfo("files/keys/x")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def opened(data: bytes, passphrase: str = PASSPHRASE) -> bytes:
    found = b""
    with archive.reading(io.BytesIO(data), passphrase, "x.xfb") as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            found += file.read()
    return found


@pytest.fixture(scope="module")
def whole() -> bytes:
    import os

    return sealed(os.urandom(3 * archive.CHUNK_BYTES))


def test_what_goes_in_comes_out() -> None:
    assert opened(sealed()) == CONTENT
    assert opened(sealed(b"")) == b""
    assert CONTENT[:64] not in sealed()


def test_a_wrong_passphrase_is_said(whole: bytes) -> None:
    with pytest.raises(Unusable, match="passphrase does not open"):
        opened(whole, "another passphrase")


def head_bytes(whole: bytes) -> int:
    return len(archive.MAGIC) + 4 + int.from_bytes(whole[len(archive.MAGIC) :][:4], "big")


@pytest.mark.parametrize("where", ["inside", "boundary", "after_the_head", "in_the_head", "in_the_magic", "empty"])
def test_a_file_that_is_cut_off_is_said(whole: bytes, where: str) -> None:
    head, box = head_bytes(whole), archive.CHUNK_BYTES + archive.TAG_BYTES
    at = {
        "inside": head + box + 1000, "boundary": head + 2 * box, "after_the_head": head, "in_the_head": head - 5,
        "in_the_magic": 3, "empty": 0,
    }[where]  # fmt: skip
    with pytest.raises(Unusable, match=r"cut off|no backup"):
        opened(whole[:at])


@pytest.mark.parametrize("at", [0.1, 0.5, 0.999])
def test_a_changed_byte_is_said(whole: bytes, at: float) -> None:
    spot = head_bytes(whole) + int((len(whole) - head_bytes(whole)) * at)
    changed = whole[:spot] + bytes([whole[spot] ^ 1]) + whole[spot + 1 :]
    with pytest.raises(Unusable, match=r"changed or damaged|cut off"):
        opened(changed)


def test_swapped_repeated_or_added_parts_are_said(whole: bytes) -> None:
    head, box = head_bytes(whole), archive.CHUNK_BYTES + archive.TAG_BYTES
    first, second = whole[head : head + box], whole[head + box : head + 2 * box]
    for tampered in (
        whole[:head] + second + first + whole[head + 2 * box :],
        whole[:head] + first + first + whole[head + box :],
        whole + b"more",
        whole + whole[head:],
    ):
        with pytest.raises(Unusable):
            opened(tampered)


@pytest.mark.parametrize(
    "change",
    [
        {"scrypt_n": 2**30}, {"scrypt_n": 3}, {"scrypt_r": -8}, {"scrypt_p": 10**9}, {"salt": 7}, {"version": 2},
        {"version": "x"}, {"made_at": "2027-01-01T00:00:00+00:00"},
    ],
    ids=["memory", "odd", "negative", "time", "type", "newer", "no_version", "date"],
)  # fmt: skip
def test_a_changed_head_is_refused_before_it_costs_anything(whole: bytes, change: dict[str, object]) -> None:
    head = msgspec.json.decode(whole[len(archive.MAGIC) + 4 : head_bytes(whole)])
    forged = msgspec.json.encode(head | change)
    data = archive.MAGIC + len(forged).to_bytes(4, "big") + forged + whole[head_bytes(whole) :]
    with pytest.raises(Unusable):
        opened(data)


def test_another_file_is_no_backup(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="is no backup"):
        opened(b"PK\x03\x04 something else entirely")
