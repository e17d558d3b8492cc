"""Fetching: files that are trusted for their SHA-256 alone, from wherever the order says."""

import hashlib
import ssl
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from xfleet_contracts.installs import MAX_DOWNLOAD_BYTES, ChecksumWrong, Download, DownloadFailed

QUIET_S = 20.0
CHUNK_BYTES = 64 * 1024


def fetch(file: Download, target: Path) -> None:
    """Writes the file; blocks. Raises `DownloadFailed` or `ChecksumWrong`, and `OSError` when the disk says no."""
    if urlsplit(file.url).scheme not in {"http", "https"}:
        raise DownloadFailed("A download's URL begins with http:// or https://.", field="url")
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    digest, size_bytes = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(file.url, timeout=QUIET_S, context=context) as answer, target.open("wb") as out:  # noqa: S310  the scheme is checked above
            while chunk := answer.read(CHUNK_BYTES):
                size_bytes += len(chunk)
                if size_bytes > MAX_DOWNLOAD_BYTES:
                    raise DownloadFailed(f"{file.url} is larger than {MAX_DOWNLOAD_BYTES} bytes.")
                digest.update(chunk)
                out.write(chunk)
    except (OSError, ValueError) as error:
        raise DownloadFailed(f"The file could not be fetched from {file.url}: {error}.") from error
    if digest.hexdigest() != file.sha256.lower():
        raise ChecksumWrong(url=file.url)
