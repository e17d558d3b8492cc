"""What a browser sees when an answer is no, or when something broke: a page, or a toast when htmx asked."""

from http import HTTPStatus
from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.response import Redirect
from litestar.types import ExceptionHandlersMap

from xfleet_contracts.errors import Refusal
from xfleet_controller.auth.service import NotSignedIn
from xfleet_controller.panel.responses import html, is_htmx
from xfleet_controller.panel.views import ErrorView
from xfleet_controller.templating import Templates
from xfleet_runtime.ids import new_id
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
_WORDS = {
    403: ("Not allowed", "Your role does not allow this."),
    404: ("Nothing here", "This page does not exist, or no longer."),
    405: ("Not like this", "This address does not take that kind of request."),
    413: ("Too much", "What was sent is larger than the panel takes."),
    429: ("Too many requests", "Wait a little and try again."),
    503: ("Not now", "A part of the panel cannot be reached. Try again in a moment."),
}
_BROKEN = ("Something broke", "It is logged. Try again; if it stays, quote the error id.")


def failure_handlers(templates: Templates) -> ExceptionHandlersMap:
    """The exception handlers of everything a browser looks at."""

    def on_not_signed_in(request: Request[Any, Any, Any], _error: Exception) -> Response[Any]:
        return to_sign_in(request, templates)

    def on_refusal(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        text, status = (error.text, error.status) if isinstance(error, Refusal) else ("", 400)
        title = _WORDS.get(status, ("That did not work", ""))[0]
        return answer(request, templates, ErrorView(status=status, title=title, message=text))

    def on_http(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        status = error.status_code if isinstance(error, HTTPException) else 500
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return on_bug(request, error)
        title, message = _WORDS.get(status, (HTTPStatus(status).phrase, "The request could not be understood."))
        return answer(request, templates, ErrorView(status=status, title=title, message=message))

    def on_bug(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        error_id = f"e-{new_id()[-8:]}"
        _log.error("a page broke", error_id=error_id, method=request.method, path=request.url.path, exc_info=error)
        title, message = _BROKEN
        return answer(request, templates, ErrorView(status=500, title=title, message=message, error_id=error_id))

    return {NotSignedIn: on_not_signed_in, Refusal: on_refusal, HTTPException: on_http, Exception: on_bug}


def answer(request: Request[Any, Any, Any], templates: Templates, error: ErrorView) -> Response[str]:
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
