"""Signing in and out with a browser."""

from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from litestar.response import Redirect

from xfleet_contracts.errors import Refusal
from xfleet_controller.auth.service import COOKIE, NotSignedIn, sign_in, sign_out, who_is
from xfleet_controller.auth.views import LoginView
from xfleet_controller.panel.forms import read_fields
from xfleet_controller.panel.responses import PAGE_HEADERS, html
from xfleet_controller.panel.session import (
    ForeignForm,
    address_of,
    check_login_form,
    login_cookie,
    new_login_token,
    read_cookie,
    session_cookie,
)
from xfleet_controller.panel.views import FormView
from xfleet_controller.panel.visit import Panel, Visit

DAY_S = 86400
NextPath = Annotated[str, QueryParameter(name="next")]


@get("/login", include_in_schema=False)
async def show_login(
    request: Request[Any, Any, Any], panel: NamedDependency[Panel], next_path: NextPath = ""
) -> Response[Any]:
    """The sign-in form; whoever is signed in already goes on."""
    token = read_cookie(request, panel.context, COOKIE)
    if token:
        try:
            await who_is(panel.context, token, kind="cookie", address=address_of(request))
        except NotSignedIn:
            pass
        else:
            return Redirect(panel.templates.url(safe_path(next_path)), status_code=303)
    return _form(request, panel, FormView(values={}), safe_path(next_path))


@post("/login", include_in_schema=False)
async def take_login(request: Request[Any, Any, Any], panel: NamedDependency[Panel]) -> Response[Any]:
    """Signs in with name and password."""
    fields = await read_fields(request)
    name, next_path = fields.text("username"), safe_path(fields.text("next"))
    try:
        await check_login_form(request, panel.context)
        signed_in = await sign_in(
            panel.context,
            name,
            fields.secret("password"),
            address=address_of(request),
            user_agent=request.headers.get("user-agent", ""),
            kind="cookie",
        )
    except ForeignForm:
        errors = {"": "The form had grown old. Please sign in again."}
        return _form(request, panel, FormView(values={"username": name}, errors=errors), next_path, status=403)
    except Refusal as refusal:
        form = FormView(values={"username": name}, errors={"": refusal.text})
        return _form(request, panel, form, next_path, status=refusal.status)
    lasting_s = panel.context.settings.session_days * DAY_S
    response = Redirect(panel.templates.url(next_path), status_code=303, headers=PAGE_HEADERS)
    response.set_cookie(session_cookie(request, panel.context, signed_in.token, max_age_s=lasting_s))
    return response


@post("/logout", include_in_schema=False)
async def take_logout(visit: NamedDependency[Visit]) -> Response[Any]:
    """Ends the session."""
    await sign_out(visit.context, visit.actor)
    response = Redirect(visit.url("/login"), status_code=303, headers=PAGE_HEADERS)
    response.set_cookie(session_cookie(visit.request, visit.context, "", max_age_s=0))
    return response


def safe_path(path: str) -> str:
    """A path below the base path to go on to; anything else, such as another host, becomes the dashboard."""
    if not path.startswith("/") or path.startswith(("//", "/\\")) or any(ord(char) < ord(" ") for char in path):
        return "/"
    return path


def _form(
    request: Request[Any, Any, Any], panel: Panel, form: FormView, next_path: str, *, status: int = 200
) -> Response[str]:
    token = new_login_token()
    login = LoginView(form=form, csrf_token=token, next_path=next_path)
    response = html(panel.templates.render("auth/login.html", login=login), status=status)
    response.set_cookie(login_cookie(request, panel.context, token))
    return response
