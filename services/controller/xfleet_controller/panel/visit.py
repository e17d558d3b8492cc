"""One request of a signed-in admin: who asks, and how an answer is put into a page, a dialog or a fragment."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from litestar import Request, Response
from litestar.response import Redirect

from xfleet_controller.auth.rights import ROLES, Actor
from xfleet_controller.context import Context
from xfleet_controller.edge import is_secure, provide_actor
from xfleet_controller.panel.forms import whole_number
from xfleet_controller.panel.responses import html, is_htmx, wants_fragment
from xfleet_controller.panel.store import server_names
from xfleet_controller.panel.views import OptionView, ShellView
from xfleet_controller.servers.rates import RateHistory
from xfleet_controller.tasks.store import count_open
from xfleet_controller.templating import Templates

CHOICE, CHOICE_COOKIE = "server", "xfleet_server"
SCOPED_PATHS = frozenset({"/", "/inbounds", "/clients", "/tasks"})
"""Pages that can be narrowed to one server."""
OK = 200
UNPROCESSABLE = 422


@dataclass(frozen=True, kw_only=True)
class Panel:
    """What the pages are made of: the controller's parts, the templates, the rates of the last minutes."""

    context: Context
    templates: Templates
    rates: RateHistory


@dataclass(frozen=True, kw_only=True)
class Visit:
    """A request by an admin who is signed in."""

    panel: Panel
    request: Request[Any, Any, Any]
    actor: Actor
    shell: ShellView

    @property
    def context(self) -> Context:
        """The controller's parts."""
        return self.panel.context

    def url(self, path: str, **query: str | int) -> str:
        """A URL of the panel."""
        return self.panel.templates.url(path, **query)

    def live_url(self, page: str, **query: str | int) -> str:
        """Where a page gets its live fragments from."""
        return self.url("/live", page=page, server=self.shell.server, **query)

    def page(self, template: str, *, status: int = OK, **context: object) -> Response[bytes]:
        """A whole page."""
        answer = self.fragment(template, status=status, shell=self.shell, **context)
        if CHOICE in self.request.query_params and not self.shell.single_server:
            answer.set_cookie(**self._choice_cookie())
        return answer

    def _choice_cookie(self) -> dict[str, Any]:
        """Keeps the chosen server while the browser is open."""
        return {
            "key": CHOICE_COOKIE,
            "value": self.shell.server,
            "path": self.context.settings.prefix or "/",
            "httponly": True,
            "secure": is_secure(self.context),
            "samesite": "lax",
        }

    def fragment(self, template: str, *, status: int = OK, **context: object) -> Response[bytes]:
        """A template as it is, without a frame of its own."""
        return html(self.panel.templates.render(template, **context), status=status, request=self.request)

    def dialog(self, fragment: str, title: str, *, status: int = OK, **context: object) -> Response[bytes]:
        """A dialog's content: alone for htmx, as a page of its own otherwise."""
        inside = wants_fragment(self.request)
        context |= {
            "shell": self.shell,
            "csrf_token": self.shell.csrf_token,
            "single_server": self.shell.single_server,
            "in_dialog": inside,
        }
        if inside:
            return self.fragment(fragment, status=status, **context)
        context |= {"fragment": fragment, "page_title": title, "active": fragment.partition("/")[0]}
        return self.fragment("layouts/dialog_page.html", status=status, **context)

    def done(self, path: str, message: str, *changed: str) -> Response[Any]:
        """After a change: closes the dialog, says so and tells the lists that changed; a redirect without htmx."""
        if not is_htmx(self.request.headers):
            return Redirect(self.url(path), status_code=303)
        return html("", status=204, headers={"hx-trigger": triggers(message, *changed, "dialog-close")})


def triggers(message: str, *events: str) -> str:
    """The header by which htmx raises events in the page: a toast, and names such as `clients-changed`.

    ASCII alone, as headers are: a name in another script would not pass.
    """
    return json.dumps({"toast": {"message": message}, **{event: {} for event in events}}, ensure_ascii=True)


async def open_visit(request: Request[Any, Any, Any], panel: Panel) -> Visit:
    """The visit of the admin who is signed in. Raises `NotSignedIn` or `CrossSite`."""
    actor = await provide_actor(request)
    async with panel.context.database.read() as session:
        names, running_tasks = await server_names(session), await count_open(session)
    path = request.url.path.removeprefix(panel.templates.base_path) or "/"
    shell = ShellView(
        username=actor.name,
        role=actor.role,
        csrf_token=actor.csrf_token,
        single_server=len(names) == 1,
        version=version("xfleet"),
        running_tasks=running_tasks,
        servers=tuple(OptionView(value=str(server_id), label=name) for server_id, name in names.items()),
        server_id=_chosen(request, names) if len(names) > 1 else None,
        scope_path=path if path in SCOPED_PATHS and len(names) > 1 else "",
        allowed=ROLES.get(actor.role, frozenset()),
    )
    return Visit(panel=panel, request=request, actor=actor, shell=shell)


def _chosen(request: Request[Any, Any, Any], names: Mapping[int, str]) -> int | None:
    """The server pages are narrowed to: what the URL says, else what was chosen last."""
    text = request.query_params.get(CHOICE, request.cookies.get(CHOICE_COOKIE, ""))
    number = whole_number(str(text).strip())
    return number if number in names else None
