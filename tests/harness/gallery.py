"""The panel's pages with sample data on a loopback port, for looking at them with a browser; also a small program."""

import argparse
import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Thread

import uvicorn
from litestar import Litestar, Request, Response, get, post
from litestar.params import FromPath
from litestar.response import ServerSentEvent

from xfleet_controller.gallery import samples
from xfleet_controller.gallery.pages import SPECIMENS, render_specimen
from xfleet_controller.panel.responses import html, wants_fragment
from xfleet_controller.panel.static import static_handler
from xfleet_controller.templating import Templates
from xfleet_runtime.clock import FakeClock

NOW = datetime(2026, 11, 22, 14, 5, 9, tzinfo=UTC)


def gallery_app(base_path: str = "/x7k2") -> Litestar:
    """An app that shows every specimen below a base path."""
    templates = Templates(base_path=base_path, clock=FakeClock(NOW))

    @get("/live")
    async def live() -> ServerSentEvent:
        return ServerSentEvent(_messages(templates))

    @get("/traffic", sync_to_thread=False)
    def chart() -> Response[bytes]:
        return html(templates.render("dashboard/_traffic.html", chart=samples.chart(NOW)))

    @get("/{name:str}", sync_to_thread=False)
    def specimen(name: FromPath[str]) -> Response[bytes]:
        return html(render_specimen(templates, name, NOW)) if name in SPECIMENS else html("", status=404)

    def form(request: Request, *, wrong: bool) -> Response[bytes]:
        context = {"client_form": samples.client_form(wrong=wrong), "csrf_token": "sample", "in_dialog": True}
        if wants_fragment(request):
            return html(templates.render("clients/_form.html", **context), status=422 if wrong else 200)
        return html(render_specimen(templates, "client-form-wrong" if wrong else "client-form", NOW))

    @get("/clients/new", sync_to_thread=False)
    def show_form(request: Request) -> Response[bytes]:
        return form(request, wrong=False)

    @post("/clients/new", status_code=200)
    async def take_form(request: Request) -> Response[bytes]:
        fields = await request.form()
        if fields["name"] == "alice":
            return form(request, wrong=True)
        trigger = '{"dialog-close": {}, "toast": {"message": "Client saved"}}'
        return html("", status=204, headers={"hx-trigger": trigger})

    return Litestar(
        [static_handler(templates.assets), live, chart, specimen, show_form, take_form],
        path=base_path,
        openapi_config=None,
    )


async def _messages(templates: Templates) -> AsyncIterator[dict[str, str] | str]:
    """What a live page hears: a changed fragment, a point of the chart, then silence."""
    card = templates.partial("server-card-1", "servers/_card.html", server=samples.server(4, NOW))
    yield card.replace('id="server-card-4"', 'id="server-card-1"').replace("New York", "Changed live")
    yield {"event": "traffic", "data": f"[{int(NOW.timestamp()) + 20}, 1000000, 77000000]"}
    await asyncio.sleep(60)


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
