"""Which template shows which sample: the list behind the gallery and behind the tests that look at every page."""

from collections.abc import Callable
from datetime import datetime

import msgspec

from xfleet_controller.clients.views import ClientDeleteView
from xfleet_controller.gallery import fleet_samples, samples
from xfleet_controller.gallery import people_samples as people
from xfleet_controller.inbounds.views import InboundDeleteView, InboundsPageView
from xfleet_controller.settings.views import TotpView
from xfleet_controller.templating import Templates

Context = Callable[[datetime], dict[str, object]]


class Specimen(msgspec.Struct, frozen=True):
    """One page in one state; `fragment` names the dialog's content it wraps, if any."""

    title: str
    context: Context
    template: str = "layouts/dialog_page.html"
    fragment: str = ""
    single_server: bool = False
    direction: str = "ltr"


def _page(title: str, template: str, context: Context, *, single: bool = False, direction: str = "ltr") -> Specimen:
    return Specimen(title=title, context=context, template=template, single_server=single, direction=direction)


def _dialog(title: str, fragment: str, context: Context) -> Specimen:
    return Specimen(title=title, context=context, fragment=fragment)


SPECIMENS: dict[str, Specimen] = {
    "dashboard": _page("Dashboard", "dashboard/index.html", lambda now: {"dashboard": samples.dashboard(now)}),
    "dashboard-rtl": _page(
        "Dashboard, right to left",
        "dashboard/index.html",
        lambda now: {"dashboard": samples.dashboard(now)},
        direction="rtl",
    ),
    "dashboard-single": _page(
        "Dashboard, one server",
        "dashboard/index.html",
        lambda now: {"dashboard": samples.dashboard(now, servers=1)},
        single=True,
    ),
    "dashboard-fresh": _page(
        "Dashboard, first start",
        "dashboard/index.html",
        lambda now: {"dashboard": samples.dashboard(now, servers=1, fresh=True)},
        single=True,
    ),
    "dashboard-none": _page(
        "Dashboard, no server",
        "dashboard/index.html",
        lambda now: {"dashboard": samples.dashboard(now, servers=0, fresh=True)},
    ),
    "servers": _page(
        "Servers",
        "servers/index.html",
        lambda now: {"servers": samples.servers_page(now)},
    ),
    "servers-table": _page(
        "Servers, as a table", "servers/index.html", lambda now: {"servers": samples.servers_page(now, rows=14)}
    ),
    "servers-none": _page(
        "Servers, none", "servers/index.html", lambda now: {"servers": samples.servers_page(now, rows=0)}
    ),
    "servers-nothing-found": _page(
        "Servers, no match",
        "servers/index.html",
        lambda now: {"servers": samples.servers_page(now, rows=0, search="zz")},
    ),
    "server": _page(
        "One server",
        "servers/show.html",
        lambda now: {
            "server": samples.server(3, now),
            "detail": samples.server_detail(3, now, status="online"),
            "tasks": samples.tasks(now),
            "orders": None,
        },
    ),
    "server-offline": _page(
        "One server, offline and replaced",
        "servers/show.html",
        lambda now: {
            "server": samples.server(2, now, status="offline"),
            "detail": samples.server_detail(2, now, status="offline"),
            "tasks": samples.tasks(now),
            "orders": None,
        },
    ),
    "server-form": _dialog("Edit server", "servers/_form.html", lambda _now: {"server_form": samples.server_form()}),
    "server-form-meanwhile": _dialog(
        "Edit server, changed meanwhile",
        "servers/_form.html",
        lambda _now: {"server_form": samples.server_form(meanwhile=True)},
    ),
    "server-new": _dialog("Add server", "servers/_new.html", lambda _now: {"server_form": samples.server_new()}),
    "server-broker": _dialog(
        "Add server, the broker", "servers/_broker.html", lambda _now: {"broker": samples.broker_form()}
    ),
    "server-ready": _dialog(
        "Add server, the machine", "servers/_ready.html", lambda _now: {"replace": samples.replace()}
    ),
    "server-join": _dialog("Add server, the line", "servers/_join.html", lambda now: {"join": samples.join(now)}),
    "server-joined": _dialog(
        "Add server, online", "servers/_join.html", lambda now: {"join": samples.join(now, state="online")}
    ),
    "server-replace": _dialog(
        "Replace machine", "servers/_replace.html", lambda _now: {"replace": samples.replace(here_only=True)}
    ),
    "server-identities": _dialog(
        "Identities", "servers/_identities.html", lambda now: {"identities": samples.identities(now)}
    ),
    "server-delete": _dialog(
        "Delete server", "servers/_delete.html", lambda now: {"deletion": samples.server_deletion(now)}
    ),
    "inbounds": _page("Inbounds", "inbounds/index.html", lambda _now: {"inbounds": samples.inbounds_page()}),
    "inbounds-empty": _page(
        "Inbounds, none", "inbounds/index.html", lambda _now: {"inbounds": samples.inbounds_page(rows=0)}
    ),
    "inbounds-no-server": _page(
        "Inbounds, no server",
        "inbounds/index.html",
        lambda _now: {"inbounds": InboundsPageView(rows=(), has_server=False)},
    ),
    "inbound-form": _dialog(
        "Add inbound",
        "inbounds/_form.html",
        lambda _now: {"inbound_form": samples.inbound_form(), "single_server": False},
    ),
    "inbound-form-wrong": _dialog(
        "Add inbound, refused",
        "inbounds/_form.html",
        lambda _now: {"inbound_form": samples.inbound_form(wrong=True), "single_server": True},
    ),
    "inbound-delete": _dialog(
        "Delete inbound",
        "inbounds/_delete.html",
        lambda _now: {"deletion": InboundDeleteView(row=samples.inbounds_page().rows[1])},
    ),
    "clients": _page("Clients", "clients/index.html", lambda now: {"clients": samples.clients_page(now)}),
    "clients-empty": _page(
        "Clients, none", "clients/index.html", lambda now: {"clients": samples.clients_page(now, rows=0)}
    ),
    "clients-nothing-found": _page(
        "Clients, no match",
        "clients/index.html",
        lambda now: {"clients": samples.clients_page(now, rows=0, search="zzz")},
    ),
    "client": _dialog(
        "One client",
        "clients/_detail.html",
        lambda now: {"client": samples.client_detail(now), "single_server": False},
    ),
    "client-form": _dialog("Add client", "clients/_form.html", lambda _now: {"client_form": samples.client_form()}),
    "client-form-wrong": _dialog(
        "Edit client, refused",
        "clients/_form.html",
        lambda _now: {"client_form": samples.client_form(adding=False, wrong=True)},
    ),
    "client-delete": _dialog(
        "Delete client",
        "clients/_delete.html",
        lambda now: {"deletion": ClientDeleteView(row=samples.client_row(2, now))},
    ),
    "tasks": _page("Tasks", "tasks/index.html", lambda now: {"tasks": samples.tasks_page(now)}),
    "tasks-empty": _page("Tasks, none", "tasks/index.html", lambda now: {"tasks": samples.tasks_page(now, rows=0)}),
    "task": _dialog("One task", "tasks/_detail.html", lambda now: {"task": samples.task_detail(now)}),
    "orders": _page("Orders of a server", "orders/index.html", lambda now: {"orders": fleet_samples.orders(now)}),
    "orders-offline": _page(
        "Orders, server offline", "orders/index.html", lambda now: {"orders": fleet_samples.orders(now, online=False)}
    ),
    "order-install": _dialog(
        "Install Xray, refused", "orders/_install.html", lambda _now: {"order_form": fleet_samples.install_form()}
    ),
    "order-geofiles": _dialog(
        "Update geo files", "orders/_geofiles.html", lambda _now: {"order_form": fleet_samples.order_form()}
    ),
    "order-stop": _dialog("Stop Xray", "orders/_stop.html", lambda _now: {"order_form": fleet_samples.order_form()}),
    "order-restore": _dialog(
        "Put a backup back", "orders/_restore.html", lambda _now: {"order_form": fleet_samples.order_form()}
    ),
    "order-checks": _dialog("Checks", "orders/_checks.html", lambda _now: {"order_form": fleet_samples.checks()}),
    "order-certificates": _dialog(
        "Certificates", "orders/_certificates.html", lambda now: {"order_form": fleet_samples.certificates(now)}
    ),
    "order-config": _dialog("Running configuration", "orders/_config.html", lambda _now: fleet_samples.config()),
    "logs": _page("Logs", "logs/show.html", lambda _now: {"log_page": fleet_samples.log_page()}),
    "logs-error": _page("Logs, none", "logs/show.html", lambda _now: {"log_page": fleet_samples.log_page(error=True)}),
    "rollouts": _page("Rollouts", "rollouts/index.html", lambda now: {"rollouts": fleet_samples.rollouts(now)}),
    "rollouts-none": _page(
        "Rollouts, none", "rollouts/index.html", lambda now: {"rollouts": fleet_samples.rollouts(now, rows=0)}
    ),
    "rollout": _page("One rollout, paused", "rollouts/show.html", lambda now: {"rollout": fleet_samples.rollout(now)}),
    "rollout-form": _dialog(
        "New rollout, refused", "rollouts/_form.html", lambda _now: {"rollout_form": fleet_samples.rollout_form()}
    ),
    "settings": _page("Settings", "settings/index.html", lambda now: {"settings": samples.settings_page(now)}),
    "settings-totp": _page(
        "Second factor, set up",
        "settings/index.html",
        lambda now: {"settings": samples.settings_page(now, people.totp_setup())},
    ),
    "settings-totp-codes": _page(
        "Recovery codes",
        "settings/index.html",
        lambda now: {"settings": samples.settings_page(now, people.totp_codes())},
    ),
    "settings-totp-on": _page(
        "Second factor, on",
        "settings/index.html",
        lambda now: {"settings": samples.settings_page(now, TotpView(on=True, recovery_codes_left=7))},
    ),
    "admins": _page("Admins", "admins/index.html", lambda now: {"admins": people.admins_page(now)}),
    "admin-new": _dialog(
        "Add admin, refused", "admins/_form.html", lambda now: {"admin_form": people.admin_form(now, wrong=True)}
    ),
    "admin-edit": _dialog(
        "Edit admin", "admins/_form.html", lambda now: {"admin_form": people.admin_form(now, number=2)}
    ),
    "admin-reset": _dialog(
        "Reset password", "admins/_reset.html", lambda now: {"admin_form": people.admin_form(now, number=2)}
    ),
    "admin-delete": _dialog(
        "Delete admin", "admins/_delete.html", lambda now: {"admin_form": people.admin_form(now, number=2)}
    ),
    "admin-invite": _dialog("One-time link", "admins/_invite.html", lambda now: {"invite": people.invite(now)}),
    "invited": _page("Choose a password", "admins/invited.html", lambda _now: {"invited": people.invited()}),
    "tokens": _page("API tokens", "tokens/index.html", lambda now: {"tokens": people.tokens_page(now)}),
    "tokens-none": _page(
        "API tokens, none", "tokens/index.html", lambda now: {"tokens": people.tokens_page(now, rows=0)}
    ),
    "token-form": _dialog(
        "Make a token, refused", "tokens/_form.html", lambda _now: {"token_form": people.token_form()}
    ),
    "token-made": _dialog("API token", "tokens/_made.html", lambda now: {"made": people.token_made(now)}),
    "audit": _page("Audit", "audit/index.html", lambda now: {"audit": people.audit_page(now)}),
    "audit-rtl": _page(
        "Audit, right to left", "audit/index.html", lambda now: {"audit": people.audit_page(now)}, direction="rtl"
    ),
    "audit-none": _page("Audit, no match", "audit/index.html", lambda now: {"audit": people.audit_page(now, rows=0)}),
    "login-code": _page("Sign in, second step", "auth/login.html", lambda _now: {"login": people.login_code()}),
    "login": _page("Sign in", "auth/login.html", lambda _now: {"login": samples.login()}),
    "login-wrong": _page("Sign in, refused", "auth/login.html", lambda _now: {"login": samples.login(wrong=True)}),
    "error-403": _page("Error 403", "errors/page.html", lambda _now: {"error": samples.errors()[0]}),
    "error-404": _page("Error 404", "errors/page.html", lambda _now: {"error": samples.errors()[1]}),
    "error-500": _page("Error 500", "errors/page.html", lambda _now: {"error": samples.errors()[2]}),
}


def render_specimen(templates: Templates, name: str, now: datetime) -> str:
    """One specimen as a whole page."""
    specimen = SPECIMENS[name]
    context = {
        "shell": samples.shell(single_server=specimen.single_server, direction=specimen.direction),
        "csrf_token": "sample",
        "in_dialog": False,
        "live_url": templates.url("/live", page="gallery"),
        "fragment": specimen.fragment,
        "page_title": specimen.title,
        "active": "",
        "wide": False,
        **specimen.context(now),
    }
    return templates.render(specimen.template, **context)
