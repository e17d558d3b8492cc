"""Where the panel's pages are plugged into the web application."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from litestar import Request, Router
from litestar.di import Provide
from litestar.types import ControllerRouterHandler

from xfleet_controller.account import web as account
from xfleet_controller.admins import web as admins
from xfleet_controller.audit import web as audit
from xfleet_controller.auth.web import show_login, take_code, take_login, take_logout
from xfleet_controller.backups import web as backups
from xfleet_controller.clients import web as clients
from xfleet_controller.context import Context
from xfleet_controller.dashboard.web import show_chart, show_dashboard
from xfleet_controller.edge import HtmlError
from xfleet_controller.gallery.web import show_gallery, show_specimen
from xfleet_controller.inbounds import web as inbounds
from xfleet_controller.logs import web as logs
from xfleet_controller.orders import web as orders
from xfleet_controller.panel.failures import html_error
from xfleet_controller.panel.static import static_handler
from xfleet_controller.panel.visit import Panel, Visit, open_visit
from xfleet_controller.rollouts import web as rollouts
from xfleet_controller.servers import dialogs as server_dialogs
from xfleet_controller.servers import state_web as server_state
from xfleet_controller.servers import web as servers
from xfleet_controller.servers.rates import RateHistory
from xfleet_controller.settings import web as settings
from xfleet_controller.sse import live
from xfleet_controller.tasks import web as tasks
from xfleet_controller.templating import Templates
from xfleet_controller.tokens import web as tokens

DOORS = (
    show_login, take_login, take_code, take_logout, show_dashboard, show_chart, live,
    servers.show_servers, servers.show_server, servers.show_server_form, servers.take_server_form, servers.enable,
    servers.disable, servers.take_mode, server_dialogs.show_new_form, server_dialogs.take_new_form,
    server_dialogs.show_join, server_dialogs.take_join, server_dialogs.take_broker, server_dialogs.show_replace,
    server_dialogs.show_delete, server_dialogs.take_delete, server_dialogs.show_identities,
    server_state.show_history, server_state.show_version, server_state.show_revert, server_state.take_revert,
    server_state.take_strays,
    server_dialogs.take_revocation, server_dialogs.take_lift,
    inbounds.show_inbounds, inbounds.show_new_form, inbounds.take_new_form, inbounds.show_form, inbounds.take_form,
    inbounds.enable, inbounds.disable, inbounds.show_delete, inbounds.take_delete,
    clients.show_clients, clients.show_new_form, clients.take_new_form, clients.show_client, clients.show_form,
    clients.take_form, clients.enable, clients.disable, clients.show_delete, clients.take_delete,
    tasks.show_tasks, tasks.show_task, tasks.cancel_task,
    *orders.DOORS, *logs.DOORS, *rollouts.DOORS,
    settings.show_settings, settings.take_password, settings.take_bot_code,
    account.begin_totp, account.confirm_totp, account.disable_totp, account.renew_codes, account.end_session,
    account.end_all_sessions, account.unbind_bot,
    admins.show_admins, admins.show_new_form, admins.take_new_form, admins.show_form, admins.take_form,
    admins.show_reset, admins.take_reset, admins.take_totp_away, admins.show_delete, admins.take_delete,
    admins.show_invite, admins.take_invite,
    tokens.show_tokens, tokens.show_tokens_of, tokens.show_new_form, tokens.take_new_form, tokens.revoke,
    audit.show_audit, audit.export_audit, *backups.DOORS,
    show_gallery, show_specimen,
)  # fmt: skip


class Pages(NamedTuple):
    """The panel's doors and its error page."""

    handlers: Sequence[ControllerRouterHandler] = ()
    html_error: HtmlError | None = None


def panel_pages(context: Context) -> Pages:
    """The panel's doors; from now on heartbeats feed the small lines on the cards, and changes the live pages."""
    templates = Templates(base_path=context.settings.prefix, clock=context.clock)
    panel = Panel(context=context, templates=templates, rates=RateHistory())
    context.presence.on_beat.append(panel.rates.note)
    context.presence.on_touch.append(context.pulse.ring)
    context.database.after_commit.append(context.pulse.ring)

    def provide_panel() -> Panel:
        return panel

    async def provide_visit(request: Request[Any, Any, Any]) -> Visit:
        return await open_visit(request, panel)

    router = Router(
        path="/",
        route_handlers=[static_handler(templates.assets), *DOORS],
        dependencies={"panel": Provide(provide_panel, sync_to_thread=False), "visit": Provide(provide_visit)},
    )
    return Pages([router], html_error(templates))
