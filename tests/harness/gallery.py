"""The panel's pages with sample data on a loopback port, for looking at them with a browser; also a small program."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Thread

import uvicorn
from litestar import Litestar, Response, get
from litestar.response import ServerSentEvent

from xfleet_controller.gallery.pages import SPECIMENS, render_specimen
from xfleet_controller.panel.responses import html
from xfleet_controller.panel.static import static_handler
from xfleet_controller.templating import Templates
from xfleet_runtime.clock import FakeClock

NOW = datetime(2026, 11, 22, 14, 5, 9, tzinfo=UTC)


def gallery_app(base_path: str = "/x7k2") -> Litestar:
    """An app that shows every specimen below a base path."""
    templates = Templates(base_path=base_path, clock=FakeClock(NOW))

    @get("/gallery/live")
    async def live() -> ServerSentEvent:
        return ServerSentEvent(iter([]))

    @get("/{name:str}", sync_to_thread=False)
    def specimen(name: str) -> Response[str]:
        return html(render_specimen(templates, name, NOW)) if name in SPECIMENS else html("", status=404)

    return Litestar([static_handler(templates.assets), live, specimen], path=base_path, openapi_config=None)


@contextmanager
def running_gallery(port: int = 0) -> Iterator[str]:
    """The gallery's base URL while it runs in a thread of this process."""
    server = uvicorn.Server(uvicorn.Config(gallery_app(), host="127.0.0.1", port=port, log_level="warning"))
    socket = server.config.bind_socket()
    thread = Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}/x7k2"
    finally:
        server.should_exit = True
        thread.join(10)
        socket.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8099)
    uvicorn.run(gallery_app(), host="127.0.0.1", port=parser.parse_args().port, log_level="warning")
