"""`run`: the controller and its web server, in one process."""

import asyncio
import logging
import os
import re
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

import uvicorn

from xfleet_controller.app import Controller, open_controller
from xfleet_controller.config import ControllerSettings
from xfleet_controller.edge import MAX_PORT
from xfleet_controller.install.side_door import is_needed
from xfleet_controller.pages import panel_pages
from xfleet_controller.patience import patient
from xfleet_controller.proxies import behind, is_loopback, networks_of
from xfleet_controller.web_app import create_side_door, create_web_app
from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import lock_exclusively, writable_directory
from xfleet_runtime.log import get_logger
from xfleet_runtime.supervise import supervise

_log = get_logger(__name__)
GRACE_S = 5
PER_NETWORK = 256
_BASE_PATH = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")


async def serve(settings: ControllerSettings) -> None:
    """Runs until cancelled. Raises `Unusable`."""
    check_listen(settings)
    check_urls(settings)
    writable_directory(settings.data_dir)
    _raise_file_limit()
    with _single_process(settings), bind(settings.listen, settings.port) as listener:
        async with (
            open_controller(settings) as controller,
            web_server(controller, listener) as server,
            _side_door(controller, listener.getsockname()[1]),
        ):
            await server.finished()


@asynccontextmanager
async def _side_door(controller: Controller, port: int) -> AsyncIterator[None]:
    """Keeps the side door, where the panel is on loopback only."""
    context = controller.context
    if not is_needed(context):
        yield
        return
    app = create_side_door(context)
    keeping = asyncio.ensure_future(supervise("side door", lambda: context.side_door.run(context, app, port)))
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


class WebServer(uvicorn.Server):
    """Uvicorn without signal handlers of its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the caller's business."""
        yield


class Serving:
    """A web server that answers."""

    def __init__(self, server: WebServer, listener: socket.socket, end_streams: Callable[[], None]) -> None:
        self._server = server
        self._listener = listener
        self._end_streams = end_streams

    async def finished(self) -> None:
        """Serves until cancelled, then lets requests finish for a moment."""
        serving = asyncio.ensure_future(self._server.serve(sockets=[self._listener]))
        try:
            await asyncio.shield(serving)
        finally:
            self._end_streams()
            self._server.should_exit = True
            await serving


@asynccontextmanager
async def web_server(controller: Controller, listener: socket.socket) -> AsyncIterator[Serving]:
    """The panel and the API on this socket."""
    settings = controller.context.settings
    pages = panel_pages(controller.context)
    app = create_web_app(
        controller.context, pages=pages.handlers, html_error=pages.html_error, state={"controller": controller}
    )
    if settings.behind_proxy:
        app = behind(app, networks_of(settings.behind_proxy))
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = uvicorn.Config(
        app,
        loop="none",
        http=patient(per_network=PER_NETWORK, trusted=networks_of(settings.behind_proxy)),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        lifespan="on",
        timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=65,
        ssl_certfile=str(settings.tls_cert) if settings.tls_cert else None,
        ssl_keyfile=str(settings.tls_key) if settings.tls_key else None,
        proxy_headers=False,
    )
    try:
        config.load()
    except OSError as error:
        raise Unusable(
            f"The TLS certificate or key cannot be used: {error}. Check --tls-cert and --tls-key."
        ) from error
    host, port = listener.getsockname()[:2]
    _log.info("panel listens", address=host, port=port, base_path=settings.prefix or "/")
    yield Serving(WebServer(config), listener, controller.context.pulse.close)


def check_listen(settings: ControllerSettings) -> None:
    """Raises `Unusable` for a public bind over plain HTTP, half a certificate, or a broken CIDR."""
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise Unusable("Give both --tls-cert and --tls-key, or neither.")
    for path in (settings.tls_cert, settings.tls_key):
        if path is not None and not path.is_file():
            raise Unusable(f"There is no file {path}. Check --tls-cert and --tls-key.")
    try:
        networks_of(settings.behind_proxy)
    except ValueError as error:
        raise Unusable(f"--behind-proxy is a CIDR such as 10.0.0.0/8: {error}.") from error
    if settings.tls or settings.behind_proxy or is_loopback(settings.listen) or settings.listen == "localhost":
        return
    raise Unusable(
        f"Refusing to show the panel on {settings.listen} over plain HTTP. Give --tls-cert and --tls-key, or "
        "--behind-proxy CIDR, or listen on 127.0.0.1."
    )


def check_urls(settings: ControllerSettings) -> None:
    """Raises `Unusable` for a port, base path or URL that can be none."""
    if not 0 <= settings.port <= MAX_PORT:
        raise Unusable(f"The port {settings.port} is not between 0 and {MAX_PORT}. Give another --port.")
    if not _BASE_PATH.fullmatch(settings.prefix):
        raise Unusable("The base path takes letters, digits, - _ . ~ and slashes. Give another --base-path.")
    if settings.public_url and not _is_url(settings.public_url, ("http", "https")):
        raise Unusable("The public URL is one such as https://panel.example.org/path. Give another --public-url.")
    for url in settings.broker_url.split(",") if settings.broker_url else ():
        if not _is_url(url.strip(), ("tls", "wss")):
            raise Unusable(f"The broker URL {url.strip()!r} is not tls://HOST:PORT. Give another --broker-url.")


def _is_url(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `Unusable` when the port is busy or the address not ours."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
    except OSError as error:
        raise Unusable(f"Cannot listen on {host}: {error}. Give another --listen address.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise Unusable(f"Cannot listen on {host} port {port}: {reason}. Free it or give another --port.") from error
    listener.setblocking(False)
    return listener


def _raise_file_limit() -> None:
    """As many open connections as the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def _single_process(settings: ControllerSettings) -> Iterator[None]:
    if not settings.database.startswith("sqlite"):
        yield
        return
    descriptor = lock_exclusively(settings.data_dir / "controller.lock", owner="A controller")
    try:
        yield
    finally:
        os.close(descriptor)
