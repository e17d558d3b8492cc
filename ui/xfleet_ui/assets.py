"""The static files as the browser gets them: under one digest of their content, cacheable for ever."""

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

_DIGEST_LENGTH = 16
_COMPRESSIBLE = {".css", ".js", ".svg", ".txt", ".json"}
_GZIP_LEVEL = 9
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".woff2": "font/woff2"}


@dataclass(frozen=True)
class Asset:
    """One static file."""

    path: Path
    media_type: str

    @cached_property
    def content(self) -> bytes:
        """The file as it is."""
        return self.path.read_bytes()

    @cached_property
    def gzipped(self) -> bytes | None:
        """The file compressed once at the best level; None for what is compressed already."""
        if self.path.suffix not in _COMPRESSIBLE:
            return None
        return gzip.compress(self.content, _GZIP_LEVEL, mtime=0)


class Assets:
    """All static files below one directory and the digest their URLs carry.

    The digest covers the whole tree, so that a stylesheet's relative font URL and a module's relative import keep
    pointing at the same release as the file they stand in.
    """

    def __init__(self, root: Path) -> None:
        self._files = {
            path.relative_to(root).as_posix(): Asset(path, _media_type(path))
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }
        whole = hashlib.sha256()
        for name, asset in self._files.items():
            whole.update(f"{name}\0{hashlib.sha256(asset.content).hexdigest()}\n".encode())
        self.digest = whole.hexdigest()[:_DIGEST_LENGTH]

    def find(self, name: str) -> Asset | None:
        """The file of that name relative to the static directory; nothing outside it can be named."""
        return self._files.get(name)

    def url_path(self, name: str) -> str:
        """The path of a file's URL below the panel's base path; a name that does not exist is a bug and raises."""
        if name not in self._files:
            raise KeyError(name)
        return f"/static/{self.digest}/{name}"


def _media_type(path: Path) -> str:
    """The content type by suffix, not by what the host's registry happens to say."""
    return _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
