"""Download: a file from any http or https mirror, straight to disk, trusted for its SHA-256 alone."""

import asyncio
import hashlib
import http.client
import os
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from email.message import Message as Headers
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from xfleet_agent.aside import aside
from xfleet_agent.disk import free_space
from xfleet_contracts.errors import MessageMalformed
from xfleet_contracts.installs import MAX_DOWNLOAD_BYTES, ChecksumWrong, Download, DownloadFailed
from xfleet_runtime.broker.dial import Proxy, dial, parse_proxy

TIMEOUT_S = 240.0
"""For the whole; `commands.TIMEOUT_S` of an install leaves time for the rest."""
QUIET_S = 20.0
"""A mirror that says nothing for so long is gone."""
CHUNK_BYTES = 64 * 1024
ROOM_BYTES = 32 * 1024 * 1024
"""Is left free on the disk."""
_SCHEMES: tuple[str, ...] = ("http", "https")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_NO_RESPONSE = (OSError, http.client.HTTPException, ValueError, UnicodeError)
"""What urllib raises for mirrors and addresses that do not work."""


async def fetch(
    file: Download,
    target: Path,
    *,
    max_bytes: int = MAX_DOWNLOAD_BYTES,
    timeout_s: float = TIMEOUT_S,
    proxy: str = "",
) -> None:
    """The file is at `target`, whole and as named, when this returns; otherwise nothing is.

    `proxy` is as the setting `broker_proxy`; empty: what the environment says.

    Raises `DownloadFailed`, `ChecksumWrong`, `MessageMalformed` for an order that names no file, and `OSError` when the
    disk does not take it.
    """
    if host_of(file.url) is None:
        raise MessageMalformed("A download's URL begins with http:// or https:// and names a host.", field="url")
    if not _SHA256.fullmatch(file.sha256):
        raise MessageMalformed("A SHA-256 is 64 hexadecimal digits.", field="sha256")
    stop = threading.Event()
    transfer = _Transfer(file, target, max_bytes, time.monotonic() + timeout_s, stop)
    try:
        async with asyncio.timeout(timeout_s + QUIET_S):
            await aside(transfer.run, proxy)
    except TimeoutError:
        raise _failed(file, "it took too long") from None
    finally:
        stop.set()


def host_of(url: str) -> str | None:
    """The host a URL names; None when it is none of ours."""
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        return None
    return host if parts.scheme in _SCHEMES else None


class _Transfer:
    def __init__(self, file: Download, target: Path, max_bytes: int, deadline_s: float, stop: threading.Event) -> None:
        self._file = file
        self._target = target
        self._max_bytes = max_bytes
        self._deadline_s = deadline_s
        self._stop = stop

    def run(self, proxy: str) -> None:
        request = _reach(self._file, lambda: _request(self._file.url))
        response = _reach(self._file, lambda: _opener(proxy).open(request, timeout=QUIET_S))
        with response:
            expected_bytes = self._check_size(response.headers)
            descriptor = os.open(self._target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as out:
                    self._copy(response, out, expected_bytes)
                    out.flush()
                    os.fsync(out.fileno())
            except BaseException:
                with suppress(OSError):
                    self._target.unlink()
                raise

    def _check_size(self, headers: Headers) -> int | None:
        """How many bytes will come, if the mirror says."""
        length = headers.get("Content-Length", "")
        if not length.isdecimal():
            return None
        size_bytes = int(length)
        if size_bytes > self._max_bytes:
            raise self._too_large()
        if size_bytes + ROOM_BYTES > free_space(self._target.parent)[0]:
            raise _failed(self._file, "the disk has no room for it")
        return size_bytes

    def _copy(self, response: Any, out: IO[bytes], expected_bytes: int | None) -> None:
        digest, size_bytes = hashlib.sha256(), 0
        while True:
            if self._stop.is_set() or time.monotonic() > self._deadline_s:
                raise _failed(self._file, "it took too long")
            chunk: bytes = _reach(self._file, lambda: response.read1(CHUNK_BYTES))
            if not chunk:
                break
            size_bytes += len(chunk)
            if size_bytes > self._max_bytes:
                raise self._too_large()
            digest.update(chunk)
            out.write(chunk)
        if expected_bytes is not None and size_bytes < expected_bytes:
            raise _failed(self._file, f"it broke off after {size_bytes} of {expected_bytes} bytes")
        if digest.hexdigest() != self._file.sha256.lower():
            raise ChecksumWrong(url=_shown(self._file.url), sha256=digest.hexdigest(), size_bytes=size_bytes)

    def _too_large(self) -> DownloadFailed:
        return _failed(self._file, f"it is larger than {self._max_bytes} bytes")


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects to the web and nowhere else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if host_of(newurl) is None:
            raise urllib.error.URLError(f"it redirects to {_shown(newurl)[:80]}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _request(url: str) -> urllib.request.Request:
    return urllib.request.Request(url, headers={"User-Agent": "xfleet"})  # noqa: S310  `fetch` let only the web in


Dialler = Callable[..., socket.socket]


class _Http(urllib.request.HTTPHandler):
    """HTTP over the sockets that a dialler opens."""

    def __init__(self, dialler: Dialler) -> None:
        super().__init__()
        self._dialler = dialler

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, req)

    def _connection(self, host: str, **more: Any) -> http.client.HTTPConnection:
        return _over(self._dialler, http.client.HTTPConnection(host, **more))


class _Https(urllib.request.HTTPSHandler):
    """As `_Http`, with TLS inside."""

    def __init__(self, dialler: Dialler) -> None:
        self._context = _any_certificate()
        super().__init__(context=self._context)
        self._dialler = dialler

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, req)

    def _connection(self, host: str, **more: Any) -> http.client.HTTPConnection:
        return _over(self._dialler, http.client.HTTPSConnection(host, context=self._context, **more))


def _over(dialler: Dialler, connection: http.client.HTTPConnection) -> http.client.HTTPConnection:
    vars(connection)["_create_connection"] = dialler
    return connection


def _through(proxy: Proxy) -> Dialler:
    """Opens sockets through a SOCKS proxy; a mirror speaks only when it was spoken to, so no byte of it is missed."""

    async def dialled(host: str, port: int) -> socket.socket:
        async with asyncio.timeout(QUIET_S):
            _, writer = await dial(host, port, proxy, limit=CHUNK_BYTES)
        opened = socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))
        writer.transport.abort()
        return opened

    def dialler(address: tuple[str, int], *_: Any) -> socket.socket:
        opened = asyncio.run(dialled(*address))
        opened.settimeout(QUIET_S)
        return opened

    return dialler


def _opener(proxy: str) -> urllib.request.OpenerDirector:
    known = parse_proxy(proxy)
    dialler: Dialler = socket.create_connection
    by_scheme = dict.fromkeys(_SCHEMES, proxy) if known is not None else None
    if known is not None and known.scheme != "http":
        dialler, by_scheme = _through(known), {}
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(by_scheme),
        _Http(dialler),
        _Https(dialler),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _WebOnly(),
    ):
        opener.add_handler(handler)
    return opener


def _any_certificate() -> ssl.SSLContext:
    """The panel's own certificate is of no authority that this machine knows; the SHA-256 is what is trusted."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _reach(file: Download, step: Callable[[], Any]) -> Any:
    """What this step on the network gives. Raises `DownloadFailed` with the reason."""
    try:
        return step()
    except urllib.error.HTTPError as error:
        error.close()
        raise _failed(file, f"the mirror answered {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _failed(file, str(error.reason)) from error
    except _NO_RESPONSE as error:
        raise _failed(file, str(error) or type(error).__name__) from error


def _failed(file: Download, reason: str) -> DownloadFailed:
    where = _shown(file.url)
    return DownloadFailed(f"The file could not be fetched from {where}: {reason}.", url=where, reason=reason)


def _shown(url: str) -> str:
    """The URL without a password or a query that may be one."""
    bare = url.partition("?")[0].partition("#")[0]
    scheme, mark, rest = bare.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"
