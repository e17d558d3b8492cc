"""Serves the panel's static files: immutable under the digest in their URL, compressed once."""

from typing import Any

from litestar import Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from xfleet_controller.panel.responses import takes_gzip
from xfleet_ui.assets import Assets

_FOREVER = "public, max-age=31536000, immutable"
_BRIEFLY = "public, max-age=60"


def static_handler(assets: Assets) -> HTTPRouteHandler:
    """The route that serves these assets; a digest of another release gets today's file, kept only briefly."""

    @get("/static/{digest:str}/{name:path}", include_in_schema=False, sync_to_thread=False, name="panel:static")
    def static_file(request: Request[Any, Any, Any], digest: FromPath[str], name: FromPath[str]) -> Response[bytes]:
        asset = assets.find(name.lstrip("/"))
        if asset is None:
            raise NotFoundException
        headers = {
            "cache-control": _FOREVER if digest == assets.digest else _BRIEFLY,
            "x-content-type-options": "nosniff",
            "vary": "Accept-Encoding",
        }
        body = asset.gzipped if takes_gzip(request) else None
        if body is None:
            return Response(asset.content, media_type=asset.media_type, headers=headers)
        return Response(body, media_type=asset.media_type, headers={**headers, "content-encoding": "gzip"})

    return static_file
