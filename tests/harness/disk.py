"""A small disk of our own, to fill up and to make read-only."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.real import is_missing

BLOCK_BYTES = 4096


@dataclass
class SmallDisk:
    """A mounted tmpfs."""

    path: Path

    @property
    def _ballast(self) -> Path:
        return self.path / "ballast"

    def fill(self) -> None:
        """Takes every free byte, also those that become free while it is at it."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1024 * 1024, BLOCK_BYTES):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def empty(self) -> None:
        """Gives back what `fill` took."""
        self._ballast.unlink()

    def make_read_only(self) -> None:
        """Nothing can be written any more; a file that is open for writing forbids this."""
        subprocess.run(["mount", "-o", "remount,ro", str(self.path)], check=True)


@contextmanager
def small_disk(config: pytest.Config, *, size_bytes: int = 32 * 1024 * 1024) -> Iterator[SmallDisk]:
    """A tmpfs of this size; skips where mounting is not allowed."""
    with tempfile.TemporaryDirectory(prefix="xd-") as name:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", "tmpfs", name],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if mounted.returncode != 0:
            is_missing(config, f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
        try:
            yield SmallDisk(Path(name))
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)
