"""The web's edge: who asks, what an error looks like, headers on everything, one access line per request."""

import asyncio
import http
import re
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import msgspec
from litestar import Request, Response
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException, ValidationException
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from sqlalchemy.exc import DataError, IntegrityError, StatementError

from xfleet_contracts.errors import Refusal
from xfleet_controller.auth import service as auth
from xfleet_controller.auth.rights import Actor, Forbidden
from xfleet_controller.context import Context
from xfleet_controller.errors import Invalid
from xfleet_controller.trace import TRACEPARENT, Trace, current_trace_id, note_actor, trace_id_of, tracing
from xfleet_runtime.broker.message import traceparent
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
REQUEST_TIMEOUT_S = 30.0
FETCH_TIMEOUT_S = 900.0
"""For a wheel over a slow line."""
MAX_BODY_BYTES = 10 * 1024 * 1024
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
PROBLEM = "application/problem+json"
ENDLESS = re.compile(r"/live|(?:/api/v1)?/servers/[0-9]{1,18}/logs/live")
"""Paths whose answers may last for ever."""
SLOW = re.compile(r"(?:/api/v1)?/servers/[0-9]{1,18}/(?:orders/)?(?:backup|restore)")
"""Paths that move files to and from servers."""
SLOW_TIMEOUT_S = 150.0
LARGE = ("/api/v1/backups", "/settings/backups")
"""Below these, large files are made and sent."""
SECRET_PATHS = ("/sub/", "/invite/")
"""What follows them lets in whoever knows it: the log does not hold it."""
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
MAX_PORT = 65535
_ACTOR = "xfleet.actor"

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; manifest-src 'self'; worker-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
TheContext = NamedDependency[Context]
"""The controller's parts, in a handler's signature."""
TheActor = NamedDependency[Actor]
"""Who asks, in a handler's signature: a handler that has it needs a session."""
_SECURITY = tuple((name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items())
HtmlError = Callable[[Request[Any, Any, Any], int, str, str, str], Response[Any]]
"""Makes an error page from request, status, title, message and error id."""


class CrossSite(Refusal):
    """A request another site made the browser send, or a form without this session's token."""

    code = "csrf"
    status = 403
    message = "This request did not come from the panel. Reload the page and try again."


def provide_context(request: Request[Any, Any, Any]) -> Context:
    """The controller's parts."""
    return request.app.state.context


async def provide_actor(request: Request[Any, Any, Any]) -> Actor:
    """Who asks, by bearer token or session cookie; asked once a request. Raises `NotSignedIn` or `CrossSite`."""
    known: Actor | None = request.scope.get(_ACTOR)
    if known is None:
        known = request.scope[_ACTOR] = await find_actor(request)  # type: ignore[literal-required]
        note_actor(known.label)
    return known


async def for_sessions(connection: Any, handler: BaseRouteHandler) -> None:
    """Guards what needs a session, before anything of the body is read; `open_to_all` on a handler lifts it."""
    if not handler.opt.get("open_to_all"):
        await provide_actor(connection)


async def find_actor(request: Request[Any, Any, Any]) -> Actor:
    """Who asks as of now: for streams, which may outlive the session they began with. Raises as `provide_actor`."""
    context: Context = request.app.state.context
    address = client_address(request)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        if token.strip().startswith(auth.TOKEN_PREFIX) and not _is_api(request, context):
            raise auth.NotSignedIn
        return await auth.who_is(context, token.strip(), kind="bearer", address=address)
    token = request.cookies.get(cookie_name(context), "")
    if not token:
        raise auth.NotSignedIn
    actor = await auth.who_is(context, token, kind="cookie", address=address)
    if request.method not in SAFE_METHODS:
        refuse_cross_site(request)
        given = request.headers.get("x-csrf-token", "") or await _form_token(request)
        if not secrets.compare_digest(given.encode(), actor.csrf_token.encode()):
            raise CrossSite
    return actor


def _is_api(request: Request[Any, Any, Any], context: Context) -> bool:
    """Whether this is the API, the only place where API tokens count."""
    return request.url.path.removeprefix(context.settings.prefix).startswith("/api/")


def refuse_cross_site(request: Request[Any, Any, Any]) -> None:
    """Raises `CrossSite` when a browser says that another site made this request."""
    site = request.headers.get("sec-fetch-site", "")
    origin = request.headers.get("origin", "")
    if site and site not in {"same-origin", "none"}:
        raise CrossSite
    if origin and _host_of(origin) != request.headers.get("host", ""):
        raise CrossSite


def _host_of(origin: str) -> str | None:
    """Host and port of an origin; None for `null` and what is no URL."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None


async def _form_token(request: Request[Any, Any, Any]) -> str:
    kind = request.headers.get("content-type", "")
    if not kind.startswith(("application/x-www-form-urlencoded", "multipart/form-data")):
        return ""
    return str((await request.form()).get("csrf_token", ""))


def client_address(request: Request[Any, Any, Any]) -> str:
    """Where the request came from; behind a trusted proxy what that says."""
    return request.client.host if request.client else ""


def is_secure(context: Context) -> bool:
    """Whether browsers reach the panel over TLS: its own or a proxy's."""
    return context.settings.tls or bool(context.settings.behind_proxy)


def cookie_name(context: Context) -> str:
    """The session cookie's name; over TLS and without a base path browsers bind it to this host."""
    if not is_secure(context):
        return auth.COOKIE
    return f"__Secure-{auth.COOKIE}" if context.settings.prefix else f"__Host-{auth.COOKIE}"


def session_cookie(context: Context, token: str) -> dict[str, Any]:
    """Arguments of `Response.set_cookie` for a session."""
    return {
        "key": cookie_name(context),
        "value": token,
        "path": context.settings.prefix or "/",
        "httponly": True,
        "secure": is_secure(context),
        "samesite": "lax",
        "max_age": context.settings.session_days * 86400,
    }


def public_base(request: Request[Any, Any, Any], context: Context) -> str:
    """The URL under which the panel is reached, without a slash at the end."""
    if context.settings.public_url:
        return context.settings.public_url.rstrip("/")
    scheme = "https" if context.settings.tls else request.url.scheme
    return f"{scheme}://{request.headers.get('host', '')}{context.settings.prefix}"


def exception_handlers(html_error: HtmlError | None) -> dict[Any, Any]:
    """Litestar's handlers: problem details below `/api`, pages elsewhere."""

    def answer(request: Request[Any, Any, Any], problem: dict[str, Any], error_id: str = "") -> Response[Any]:
        prefix = request.app.state.context.settings.prefix
        path = request.url.path.removeprefix(prefix)
        headers = {"retry-after": str(problem["retry_after_s"])} if "retry_after_s" in problem else {}
        if html_error is not None and not path.startswith(
            ("/api/", "/sub/", "/install/", "/metrics", "/healthz", "/readyz")
        ):
            return html_error(request, problem["status"], problem["title"], problem["detail"], error_id)
        problem |= {"trace_id": current_trace_id()}
        return Response(problem, status_code=problem["status"], media_type=PROBLEM, headers=headers)

    def on_refusal(request: Request[Any, Any, Any], error: Refusal) -> Response[Any]:
        return answer(request, problem_of(error))

    def on_validation(request: Request[Any, Any, Any], error: ValidationException) -> Response[Any]:
        return answer(request, problem_of_validation(error))

    def on_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
        if error.status_code >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            return on_bug(request, error)
        if error.status_code == http.HTTPStatus.BAD_REQUEST:
            return answer(request, _problem(422, "malformed", "The body could not be read: it is not JSON."))
        return answer(request, _problem(error.status_code, _word_of(error.status_code), error.detail))

    def on_conflict(request: Request[Any, Any, Any], _error: IntegrityError) -> Response[Any]:
        return answer(request, _problem(409, "conflict", "Somebody else saved the same at the same moment. Try again."))

    def on_bug(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        error_id = secrets.token_hex(6)
        _log.error("unhandled error", error_id=error_id, path=_shown(request.url.path), exc_info=error)
        detail = f"Something broke. The log has it as error {error_id}."
        return answer(request, _problem(500, "internal", detail) | {"error_id": error_id}, error_id)

    return {
        Refusal: on_refusal,
        ValidationException: on_validation,
        IntegrityError: on_conflict,
        HTTPException: on_http,
        Exception: on_bug,
        **_handlers_of_nonsense(answer, on_bug),
    }


def _handlers_of_nonsense(answer: Callable[..., Response[Any]], on_bug: Callable[..., Response[Any]]) -> dict[Any, Any]:
    """For what no check foresaw: the database or the decoder could not take what was sent."""

    def on_unstorable(request: Request[Any, Any, Any], _error: Exception) -> Response[Any]:
        return answer(request, _problem(422, "unstorable", "A number is too large, or a text holds a NUL character."))

    def on_overflow(request: Request[Any, Any, Any], error: OverflowError | StatementError) -> Response[Any]:
        cause = error.orig if isinstance(error, StatementError) else error
        told = isinstance(cause, OverflowError) and "SQLite INTEGER" in str(cause)
        return on_unstorable(request, error) if told else on_bug(request, error)

    def on_unreadable(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        if request.method in SAFE_METHODS:
            return on_bug(request, error)
        detail = "The body could not be read: it is nested too deeply, or it is not UTF-8."
        return answer(request, _problem(422, "malformed", detail))

    return {
        DataError: on_unstorable,
        StatementError: on_overflow,
        OverflowError: on_overflow,
        RecursionError: on_unreadable,
        UnicodeDecodeError: on_unreadable,
    }


def problem_of(error: Refusal) -> dict[str, Any]:
    """A refusal as problem details."""
    details = {key: value for key, value in error.details.items() if key not in {"errors", "title", "status"}}
    errors = [{"field": "", "reason": error.text}]
    if isinstance(error, Invalid):
        errors = [{"field": each.field, "reason": each.reason, "code": each.code} for each in error.errors]
    elif "field" in details:
        errors = [{"field": details["field"], "reason": error.text, "code": error.code}]
    return details | _problem(error.status, error.code, error.text, errors)


def problem_of_validation(error: ValidationException) -> dict[str, Any]:
    """What Litestar found wrong with parameters or body, as fields and reasons."""
    errors = [_field_error(each) for each in error.extra or [{"message": error.detail}] if isinstance(each, dict)]
    return _problem(422, "invalid", errors[0]["reason"] if errors else error.detail, errors)


def _field_error(extra: dict[str, Any]) -> dict[str, str]:
    message = str(extra.get("message", ""))
    unknown = re.search(r"unknown field `([^`]+)`", message)
    missing = re.search(r"missing required field `([^`]+)`", message)
    path = str(extra.get("key", "")).removeprefix("data").lstrip(".")
    field = ".".join(part for part in (path, (unknown or missing or [None, ""])[1]) if part)
    if unknown:
        return {"field": field, "reason": "There is no such field.", "code": "unknown_field"}
    if missing:
        return {"field": field, "reason": "This field is required.", "code": "required"}
    return {"field": field, "reason": message.partition(" - at ")[0], "code": "invalid"}


def _problem(status: int, code: str, detail: str, errors: list[dict[str, str]] | None = None) -> dict[str, Any]:
    title = http.HTTPStatus(status).phrase
    return {
        "type": "about:blank", "title": title, "status": status, "code": code, "detail": detail,
        "errors": errors or [],
    }  # fmt: skip


def _word_of(status: int) -> str:
    return {
        401: "not_signed_in",
        403: Forbidden.code,
        404: "not_found",
        405: "method_not_allowed",
        413: "too_large",
    }.get(status, "refused")


def around(app: ASGIApp, prefix: str) -> ASGIApp:
    """The application with security headers, a time limit and one access line, also where no route matches."""

    async def edge(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        with tracing(trace_id_of(_header(scope, TRACEPARENT.encode()))) as trace:
            await _traced(app, prefix, trace, scope, receive, send)

    return edge


async def _traced(app: ASGIApp, prefix: str, trace: Trace, scope: Scope, receive: Receive, send: Send) -> None:
    started_s, status = time.perf_counter(), 0
    told = [(name.encode(), value.encode()) for name, value in traceparent(trace.id).items()]

    async def send_with_headers(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            message["headers"] = [*_with_security(message["headers"]), *told]
        await send(message)

    path = scope["path"].removeprefix(prefix)
    if not is_below(scope["path"], prefix):
        await _send_plain(send_with_headers, 404, b"Not found.\n")
        return
    if not is_host(_header(scope, b"host")) and path != "/healthz":
        await _send_plain(send_with_headers, 400, b"The Host header is missing or malformed.\n")
        return
    try:
        async with asyncio.timeout(time_limit_s(path)):
            await app(scope, receive, send_with_headers)
    except TimeoutError:
        if not status:
            await _send_timeout(send_with_headers)
    finally:
        _log_access(scope, prefix, trace, status, time.perf_counter() - started_s)


def time_limit_s(path: str) -> float | None:
    """How long an answer may take; None for streams."""
    if ENDLESS.fullmatch(path):
        return None
    if path.startswith(LARGE):
        return None
    if path.startswith("/install/"):
        return FETCH_TIMEOUT_S
    return SLOW_TIMEOUT_S if SLOW.fullmatch(path) else REQUEST_TIMEOUT_S


def is_below(path: str, prefix: str) -> bool:
    """Whether a path belongs to the panel; whoever does not know the base path gets no word of it."""
    return not prefix or path == prefix or path.startswith(f"{prefix}/")


def is_host(text: str) -> bool:
    """Whether this is a host, with or without a port, that can stand in a URL."""
    if not _HOST.fullmatch(text):
        return False
    port = text.rpartition(":")[2] if not text.endswith("]") and ":" in text else "0"
    return int(port) <= MAX_PORT


def _header(scope: Scope, wanted: bytes) -> str:
    """The value of a header that came exactly once; empty otherwise."""
    found = [value for name, value in scope["headers"] if name == wanted]
    return found[0].decode("latin-1") if len(found) == 1 else ""


async def _send_plain(send: Callable[[Message], Any], status: int, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})  # type: ignore[typeddict-item]
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _with_security(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    given = list(headers)
    present = {name.lower() for name, _ in given}
    return [*given, *(each for each in _SECURITY if each[0] not in present)]


async def _send_timeout(send: Callable[[Message], Any]) -> None:
    body = msgspec.json.encode(_problem(504, "too_slow", "This took too long.") | {"trace_id": current_trace_id()})
    headers = [(b"content-type", PROBLEM.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 504, "headers": headers})  # type: ignore[typeddict-item]
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _log_access(scope: Scope, prefix: str, trace: Trace, status: int, took_s: float) -> None:
    """Path templates only: paths hold the secrets of subscriptions."""
    template = str(scope.get("path_template") or "").removeprefix(prefix)
    client = scope.get("client")
    _log.info(
        "request", method=scope["method"], path=template or "(no route)", status=status,
        took_ms=round(took_s * 1000, 1), actor=trace.actor, address=client[0] if client else "", trace_id=trace.id,
    )  # fmt: skip


def _shown(path: str) -> str:
    """The path as the log may hold it."""
    found = next((secret for secret in SECRET_PATHS if secret in path), "")
    return f"{path.partition(found)[0]}{found}…" if found else path
