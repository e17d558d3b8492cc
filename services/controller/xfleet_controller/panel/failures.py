"""What a browser sees when an answer is no, or when something broke: a page, or a toast when htmx asked."""

from http import HTTPStatus
from typing import Any

from litestar import Request, Response
from litestar.response import Redirect

from xfleet_controller.edge import HtmlError
from xfleet_controller.panel.responses import html, is_htmx
from xfleet_controller.panel.views import ErrorView
from xfleet_controller.templating import Templates
from xfleet_controller.trace import current_trace_id

_WORDS = {
    403: ("Not allowed", "Your role does not allow this."),
    404: ("Nothing here", "This page does not exist, or no longer."),
    405: ("Not like this", "This address does not take that kind of request."),
    413: ("Too much", "What was sent is larger than the panel takes."),
    429: ("Too many requests", "Wait a little and try again."),
    500: ("Something broke", "It is logged. Try again; if it stays, quote the error id."),
    503: ("Not now", "A part of the panel cannot be reached. Try again in a moment."),
}
_GENERIC = frozenset({404, 405, 413, 429, 500})
"""Statuses whose message the library writes for programmers."""


def html_error(templates: Templates) -> HtmlError:
    """How the edge shows a refusal or a bug to a browser."""

    def show(request: Request[Any, Any, Any], status: int, title: str, message: str, error_id: str) -> Response[Any]:
        if status == HTTPStatus.UNAUTHORIZED:
            return to_sign_in(request, templates)
        known_title, known_message = _WORDS.get(status, (title, ""))
        said = known_message or message if status in _GENERIC else message
        return answer(request, templates, _view(status, known_title, said, error_id))

    return show


def _view(status: int, title: str, message: str, error_id: str) -> ErrorView:
    return ErrorView(status=status, title=title, message=message, error_id=error_id, trace_id=current_trace_id())


def answer(request: Request[Any, Any, Any], templates: Templates, error: ErrorView) -> Response[bytes]:
    """The error as a page; as a toast in the corner of the page that is open when htmx asked."""
    if not is_htmx(request.headers):
        return html(templates.render("errors/page.html", error=error), status=error.status)
    headers = {"hx-retarget": "#toasts", "hx-reswap": "beforeend", "hx-push-url": "false"}
    return html(templates.render("errors/_toast.html", error=error), status=error.status, headers=headers)


def to_sign_in(request: Request[Any, Any, Any], templates: Templates) -> Response[Any]:
    """To the sign-in page and, after it, back to where the browser wanted to go."""
    path = request.url.path.removeprefix(templates.base_path) or "/"
    wanted = path if request.method == "GET" and path not in {"/", "/live", "/logout"} else ""
    if is_htmx(request.headers):
        return html("", status=401, headers={"hx-redirect": templates.url("/login")})
    query = str(request.url.query)
    return Redirect(templates.url("/login", next=f"{wanted}?{query}" if wanted and query else wanted), status_code=303)
