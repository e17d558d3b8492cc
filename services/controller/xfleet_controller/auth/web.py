"""Signing in and out with a browser."""

from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from litestar.response import Redirect

from xfleet_contracts.errors import Refusal
from xfleet_controller.auth.service import (
    ChallengeOver,
    NotSignedIn,
    SignedIn,
    TotpRequired,
    WrongPassword,
    sign_in,
    sign_in_with_code,
    sign_out,
)
from xfleet_controller.auth.views import LoginView
from xfleet_controller.edge import client_address, provide_actor, refuse_cross_site, session_cookie
from xfleet_controller.panel.forms import read_fields
from xfleet_controller.panel.responses import PAGE_HEADERS, html
from xfleet_controller.panel.views import FormView
from xfleet_controller.panel.visit import Panel, Visit

NextPath = Annotated[str, QueryParameter(name="next")]


@get("/login", include_in_schema=False)
async def show_login(
    request: Request[Any, Any, Any], panel: NamedDependency[Panel], next_path: NextPath = ""
) -> Response[Any]:
    """The sign-in form; whoever is signed in already goes on."""
    try:
        await provide_actor(request)
    except NotSignedIn:
        return _form(panel, FormView(values={}), safe_path(next_path))
    return Redirect(panel.templates.url(safe_path(next_path)), status_code=303)


@post("/login", include_in_schema=False)
async def take_login(request: Request[Any, Any, Any], panel: NamedDependency[Panel]) -> Response[Any]:
    """Signs in with name and password, or goes on to the code; only a form of our own site may."""
    refuse_cross_site(request)
    fields = await read_fields(request)
    name, next_path = fields.text("username"), safe_path(fields.text("next"))
    try:
        signed_in = await sign_in(panel.context, name, fields.secret("password"), **_visitor(request))
    except TotpRequired as asked:
        return _form(panel, FormView(values={}), next_path, challenge=asked.challenge)
    except Refusal as refusal:
        form = FormView(values={"username": name}, errors={"": refusal.text})
        return _form(panel, form, next_path, status=refusal.status)
    return _enter(panel, signed_in, next_path)


@post("/login/code", include_in_schema=False)
async def take_code(request: Request[Any, Any, Any], panel: NamedDependency[Panel]) -> Response[Any]:
    """The second step, with a code of the authenticator app or a recovery code."""
    refuse_cross_site(request)
    fields = await read_fields(request)
    challenge, next_path = fields.text("challenge"), safe_path(fields.text("next"))
    try:
        signed_in = await sign_in_with_code(panel.context, challenge, fields.text("code"), **_visitor(request))
    except (ChallengeOver, WrongPassword):
        over = FormView(values={}, errors={"": ChallengeOver.message})
        return _form(panel, over, next_path, status=ChallengeOver.status)
    except Refusal as refusal:
        form = FormView(values={}, errors={"": refusal.text})
        return _form(panel, form, next_path, status=refusal.status, challenge=challenge)
    return _enter(panel, signed_in, next_path)


@post("/logout", include_in_schema=False)
async def take_logout(visit: NamedDependency[Visit]) -> Response[Any]:
    """Ends the session."""
    await sign_out(visit.context, visit.actor)
    return signed_out(visit)


def signed_out(visit: Visit) -> Response[Any]:
    """To the sign-in page, without the cookie."""
    response = Redirect(visit.url("/login"), status_code=303, headers=PAGE_HEADERS)
    cookie = session_cookie(visit.context, "")
    cookie["max_age"] = 0
    response.set_cookie(**cookie)
    return response


def safe_path(path: str) -> str:
    """A path below the base path to go on to; anything else, such as another host, becomes the dashboard."""
    if not path.startswith("/") or path.startswith(("//", "/\\")) or any(ord(char) <= ord(" ") for char in path):
        return "/"
    return path


def _visitor(request: Request[Any, Any, Any]) -> dict[str, str]:
    agent = request.headers.get("user-agent", "")
    return {"address": client_address(request), "user_agent": agent, "kind": "cookie"}


def _enter(panel: Panel, signed_in: SignedIn, next_path: str) -> Response[Any]:
    response = Redirect(panel.templates.url(next_path), status_code=303, headers=PAGE_HEADERS)
    response.set_cookie(**session_cookie(panel.context, signed_in.token))
    return response


def _form(panel: Panel, form: FormView, next_path: str, *, status: int = 200, challenge: str = "") -> Response[bytes]:
    login = LoginView(form=form, next_path=next_path, challenge=challenge)
    return html(panel.templates.render("auth/login.html", login=login), status=status)
