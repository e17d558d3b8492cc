"""The gallery with a browser, for owners."""

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from xfleet_controller.auth.rights import authorize
from xfleet_controller.errors import NotFound
from xfleet_controller.gallery.pages import SPECIMENS, render_specimen
from xfleet_controller.panel.responses import html
from xfleet_controller.panel.visit import Visit


@get("/gallery", include_in_schema=False)
async def show_gallery(visit: NamedDependency[Visit]) -> Response[bytes]:
    """The list of everything that can be looked at."""
    authorize(visit.actor, "gallery.read")
    return visit.page("gallery/index.html", specimens=SPECIMENS)


@get("/gallery/{name:str}", include_in_schema=False)
async def show_specimen(visit: NamedDependency[Visit], name: FromPath[str]) -> Response[bytes]:
    """One page in one state, made up."""
    authorize(visit.actor, "gallery.read")
    if name not in SPECIMENS:
        raise NotFound
    return html(render_specimen(visit.panel.templates, name, visit.context.clock.now()))
