"""The panel's session cookie, and the tokens that tell a form of ours from one of somebody else's."""

import hmac
import secrets
from typing import Any

from litestar import Request
from litestar.datastructures import Cookie
from litestar.enums import RequestEncodingType

from xfleet_contracts.errors import Refusal
from xfleet_controller.auth.rights import Actor
from xfleet_controller.auth.service import COOKIE, NotSignedIn, who_is
from xfleet_controller.context import Context

CSRF_HEADER = "x-csrftoken"
CSRF_FIELD = "_csrf_token"
LOGIN_COOKIE = "xfleet_login"
LOGIN_FORM_S = 3600
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_FORM_TYPES = (RequestEncodingType.URL_ENCODED, RequestEncodingType.MULTI_PART)


class ForeignForm(Refusal):
    """A change that did not come from one of our pages of this session."""

    code = "csrf"
    status = 403
    message = "This page has grown old or was not ours. Reload it and try again."


def cookie_name(base: str, *, secure: bool, prefix: str) -> str:
    """The cookie's name with the browser's own protection in front: over TLS nobody else may set or widen it."""
    if not secure:
        return base
    return f"__Secure-{base}" if prefix else f"__Host-{base}"


def is_secure(request: Request[Any, Any, Any]) -> bool:
    """Whether the browser speaks TLS, to us or to the proxy we believe."""
    return request.url.scheme == "https"


def address_of(request: Request[Any, Any, Any]) -> str:
    """Where the request comes from."""
    return request.client.host if request.client else ""


def session_cookie(request: Request[Any, Any, Any], context: Context, token: str, *, max_age_s: int) -> Cookie:
    """The cookie that holds a session's token; `max_age_s` 0 takes it away."""
    return _cookie(request, context, COOKIE, token, max_age_s, "lax")


def login_cookie(request: Request[Any, Any, Any], context: Context, token: str) -> Cookie:
    """The cookie that ties the sign-in form to this browser."""
    return _cookie(request, context, LOGIN_COOKIE, token, LOGIN_FORM_S, "strict")


def _cookie(
    request: Request[Any, Any, Any], context: Context, base: str, value: str, max_age_s: int, same_site: Any
) -> Cookie:
    prefix, secure = context.settings.prefix, is_secure(request)
    return Cookie(
        key=cookie_name(base, secure=secure, prefix=prefix),
        value=value,
        path=prefix or "/",
        max_age=max_age_s,
        secure=secure,
        httponly=True,
        samesite=same_site,
    )


def read_cookie(request: Request[Any, Any, Any], context: Context, base: str) -> str:
    """The value of one of our cookies; empty when there is none."""
    name = cookie_name(base, secure=is_secure(request), prefix=context.settings.prefix)
    return request.cookies.get(name, "")


async def signed_in(request: Request[Any, Any, Any], context: Context) -> Actor:
    """The admin who asks. Raises `NotSignedIn`, and `ForeignForm` for a change without its token."""
    token = read_cookie(request, context, COOKIE)
    if not token:
        raise NotSignedIn
    actor = await who_is(context, token, kind="cookie", address=address_of(request))
    if request.method not in SAFE_METHODS and not _same(await _given_token(request), actor.csrf_token):
        raise ForeignForm
    return actor


def new_login_token() -> str:
    """What a sign-in form and its cookie both carry."""
    return secrets.token_urlsafe(24)


async def check_login_form(request: Request[Any, Any, Any], context: Context) -> None:
    """Raises `ForeignForm` unless the sign-in form was served to this very browser."""
    if not _same(await _given_token(request), read_cookie(request, context, LOGIN_COOKIE)):
        raise ForeignForm


async def _given_token(request: Request[Any, Any, Any]) -> str:
    header = request.headers.get(CSRF_HEADER, "")
    if header or request.content_type[0] not in _FORM_TYPES:
        return header
    value = (await request.form()).get(CSRF_FIELD, "")
    return value if isinstance(value, str) else ""


def _same(given: str, expected: str) -> bool:
    return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())
