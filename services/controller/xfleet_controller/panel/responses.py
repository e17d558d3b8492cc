"""How pages leave the controller: as HTML under a strict content policy, to a browser or to htmx."""

import gzip
from typing import Any

from litestar import Request, Response
from litestar.datastructures import Headers

_SOURCES = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "font-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
}
CONTENT_SECURITY_POLICY = "; ".join(f"{kind} {sources}" for kind, sources in _SOURCES.items())
"""No inline script, no inline style, no style attribute, nothing from elsewhere (`data:` is Tabler's check marks)."""

WORTH_COMPRESSING_BYTES = 1024
GZIP_LEVEL = 5
PAGE_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=()",
    "cache-control": "no-store",
    "vary": "HX-Request, Cookie, Accept-Encoding",
}
"""`same-origin`, because under `no-referrer` browsers send our own forms with `Origin: null`."""


def html(
    body: str,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    request: Request[Any, Any, Any] | None = None,
) -> Response[bytes]:
    """A page or fragment with the headers every page has; compressed when the request's browser takes that."""
    content, more = body.encode(), dict(headers or {})
    if request is not None and len(content) > WORTH_COMPRESSING_BYTES and takes_gzip(request):
        content = gzip.compress(content, GZIP_LEVEL, mtime=0)
        more["content-encoding"] = "gzip"
    return Response(
        content, status_code=status, media_type="text/html; charset=utf-8", headers={**PAGE_HEADERS, **more}
    )


def takes_gzip(request: Request[Any, Any, Any]) -> bool:
    """Whether the browser understands gzip."""
    return "gzip" in request.headers.get("accept-encoding", "")


def wants_fragment(request: Request[Any, Any, Any]) -> bool:
    """Whether htmx asks for a dialog's content rather than a browser for a page."""
    return is_htmx(request.headers) and request.headers.get("hx-target", "").endswith("#dialog-content")


def is_htmx(headers: Headers) -> bool:
    """Whether htmx sent the request."""
    return headers.get("hx-request") == "true"
