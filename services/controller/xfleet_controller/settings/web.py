"""The settings page: own account and bot code."""

from importlib.metadata import version
from typing import Any

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery
from litestar.response import Redirect

from xfleet_contracts.errors import Refusal
from xfleet_controller.account.service import change_password, get_second_factor, list_sessions, session_id
from xfleet_controller.auth.passwords import MIN_LENGTH
from xfleet_controller.bot.service import list_bindings, make_code
from xfleet_controller.errors import invalid
from xfleet_controller.panel.forms import read_fields, refused
from xfleet_controller.panel.views import FormView
from xfleet_controller.panel.visit import UNPROCESSABLE, Visit
from xfleet_controller.servers.service import list_servers
from xfleet_controller.settings.views import BindingView, BotCodeView, SessionRowView, SettingsView, TotpView

PASSWORD_FIELDS = ("current_password", "new_password", "repeat_password")
BROWSERS = (
    ("Edg/", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
"""What tells a browser, in the order in which they pretend to be each other."""
SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS", "macOS"),
    ("Linux", "Linux"),
)
EMPTY = FormView(values=dict.fromkeys(PASSWORD_FIELDS, ""))


@get("/settings", include_in_schema=False)
async def show_settings(visit: NamedDependency[Visit], changed: FromQuery[str] = "") -> Response[bytes]:
    """The settings."""
    return await settings_page(visit, password_changed=changed == "password")


@post("/settings/password", include_in_schema=False)
async def take_password(visit: NamedDependency[Visit]) -> Response[Any]:
    """Changes the own password; other sessions end."""
    fields = await read_fields(visit.request)
    current, new, again = (fields.secret(name) for name in PASSWORD_FIELDS)
    try:
        if new != again:
            raise invalid("repeat_password", "The two new passwords differ.", "differs")
        await change_password(visit.context, visit.actor, current, new)
    except Refusal as refusal:
        return await settings_page(visit, password_form=refused(EMPTY.values, refusal), status=UNPROCESSABLE)
    return Redirect(visit.url("/settings", changed="password"), status_code=303)


@post("/settings/bot-code", include_in_schema=False, status_code=200)
async def take_bot_code(visit: NamedDependency[Visit]) -> Response[bytes]:
    """Makes a bot code and shows it, once."""
    made = await make_code(visit.context, visit.actor)
    return await settings_page(visit, bot_code=BotCodeView(code=made.code, expires_at=made.expires_at))


async def settings_page(
    visit: Visit,
    *,
    password_form: FormView = EMPTY,
    password_changed: bool = False,
    bot_code: BotCodeView | None = None,
    totp: TotpView | None = None,
    status: int = 200,
) -> Response[bytes]:
    """The page with what just happened on it; `totp` is what is shown of the second factor beside how it stands."""
    servers, _ = await list_servers(visit.context, visit.actor)
    sessions = await list_sessions(visit.context, visit.actor)
    factor = await get_second_factor(visit.context, visit.actor)
    xray_versions = sorted({view.server.xray_version for view in servers if view.server.xray_version})
    settings = SettingsView(
        username=visit.actor.name,
        password_form=password_form,
        password_length=MIN_LENGTH,
        password_changed=password_changed,
        bot_code=bot_code,
        bindings=tuple(
            BindingView(telegram_id=row.telegram_id, name=row.name, created_at=row.created_at)
            for row in await list_bindings(visit.context, visit.actor)
        ),
        totp=msgspec.structs.replace(totp or TotpView(), on=factor.on, recovery_codes_left=factor.recovery_codes_left),
        sessions=tuple(
            SessionRowView(
                id=session_id(row),
                user_agent=device_words(row.user_agent) or row.kind,
                address=row.address,
                last_seen_at=row.last_used_at,
                current=row.token_sha256 == visit.actor.session,
            )
            for row in sessions
        ),
        versions=(("xfleet", version("xfleet")), ("Xray", ", ".join(xray_versions) or "–")),
    )
    return visit.page("settings/index.html", settings=settings, status=status)


def device_words(user_agent: str) -> str:
    """A browser's name for itself, as people would say it: `Firefox on Windows`; the beginning of what is unknown."""
    browser = next((name for mark, name in BROWSERS if mark in user_agent), "")
    system = next((name for mark, name in SYSTEMS if mark in user_agent), "")
    return " on ".join(part for part in (browser, system) if part) if browser else user_agent[:60]
