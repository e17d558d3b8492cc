"""Orders with a browser: buttons and forms of one server's page, usable on a page of their own too."""

import asyncio
from typing import Any

from litestar import Response, get, post
from litestar.datastructures import UploadFile
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Redirect, Stream

from xfleet_contracts.care import MAX_BLOB_BYTES, CertificateList, ChecksRun
from xfleet_contracts.commands import Nothing
from xfleet_contracts.errors import Refusal
from xfleet_contracts.message import Message
from xfleet_controller.auth.rights import authorize, may
from xfleet_controller.errors import BusUnavailable, Invalid, invalid
from xfleet_controller.orders import forms, service, verbs
from xfleet_controller.orders.answers import shown
from xfleet_controller.orders.api import download
from xfleet_controller.orders.present import certificate_view, check_view, panel_view
from xfleet_controller.orders.verbs import Verb
from xfleet_controller.orders.views import CertificatesView, ChecksView, ConfigView, OrderFormView
from xfleet_controller.panel.forms import read_fields, refused
from xfleet_controller.panel.responses import is_htmx
from xfleet_controller.panel.views import FormView
from xfleet_controller.panel.visit import UNPROCESSABLE, Visit
from xfleet_controller.servers.models import Server
from xfleet_controller.servers.service import get_server

UPLOAD_BYTES = MAX_BLOB_BYTES + 64 * 1024
MAX_ROWS = 200
CHUNK_BYTES = 1024 * 1024
NOTHING = Nothing()


@get("/servers/{server_id:int}/orders", include_in_schema=False)
async def show_orders(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[bytes]:
    """All orders of one server."""
    server = await _server(visit, server_id)
    view = await panel_view(visit.context, visit.actor, server)
    return visit.page("orders/index.html", orders=view, live_url=visit.live_url("orders", ids=server_id))


@get("/servers/{server_id:int}/orders/stop", include_in_schema=False)
async def show_stop(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[bytes]:
    """Asks before Xray is stopped."""
    authorize(visit.actor, verbs.XRAY_STOP.action)
    return await _form(visit, server_id, "orders/_stop.html", "Stop Xray?")


@post("/servers/{server_id:int}/orders/stop", include_in_schema=False)
async def take_stop(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[Any]:
    """Stops Xray."""
    return await _order(visit, server_id, verbs.XRAY_STOP, NOTHING, "Xray is being stopped")


@post("/servers/{server_id:int}/orders/start", include_in_schema=False)
async def take_start(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[Any]:
    """Starts Xray."""
    return await _order(visit, server_id, verbs.XRAY_START, NOTHING, "Xray is being started")


@post("/servers/{server_id:int}/orders/restart", include_in_schema=False)
async def take_restart(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[Any]:
    """Restarts Xray."""
    return await _order(visit, server_id, verbs.XRAY_RESTART, NOTHING, "Xray is being restarted")


@get("/servers/{server_id:int}/orders/install", include_in_schema=False)
async def show_install(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[bytes]:
    """The form of an Xray to install."""
    authorize(visit.actor, verbs.XRAY_INSTALL.action)
    return await _form(visit, server_id, "orders/_install.html", "Install Xray")


@post("/servers/{server_id:int}/orders/install", include_in_schema=False)
async def take_install(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[Any]:
    """Installs an Xray from a mirror, or goes back to another one."""
    authorize(visit.actor, verbs.XRAY_INSTALL.action)
    fields = await read_fields(visit.request)
    try:
        return await _order(
            visit, server_id, verbs.XRAY_INSTALL, forms.install_of(fields), "The Xray is being installed"
        )
    except Invalid as refusal:
        form = refused(fields.values(), refusal, names=forms.INSTALL_NAMES)
        return await _form(visit, server_id, "orders/_install.html", "Install Xray", form)


@get("/servers/{server_id:int}/orders/geofiles", include_in_schema=False)
async def show_geofiles(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[bytes]:
    """The form of geo files to fetch."""
    authorize(visit.actor, verbs.GEOFILES_UPDATE.action)
    return await _form(visit, server_id, "orders/_geofiles.html", "Update geo files")


@post("/servers/{server_id:int}/orders/geofiles", include_in_schema=False)
async def take_geofiles(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[Any]:
    """Fetches geo files."""
    authorize(visit.actor, verbs.GEOFILES_UPDATE.action)
    fields = await read_fields(visit.request)
    try:
        body = forms.geo_files_of(fields)
        try:
            return await _order(visit, server_id, verbs.GEOFILES_UPDATE, body, "The geo files are being fetched")
        except Invalid as refusal:
            raise forms.renamed(refusal, body) from refusal
    except Invalid as refusal:
        form = refused(forms.GEO_BLANK | fields.values(), refusal)
        return await _form(visit, server_id, "orders/_geofiles.html", "Update geo files", form)


@get("/servers/{server_id:int}/orders/checks", include_in_schema=False)
async def show_checks(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[bytes]:
    """The form of what to try from a server."""
    authorize(visit.actor, verbs.CHECKS_RUN.action)
    server = await _server(visit, server_id)
    view = ChecksView(server_id=server.id, server_name=server.name, form=FormView(values={}))
    return visit.dialog("orders/_checks.html", "Checks", order_form=view)


@post("/servers/{server_id:int}/orders/checks", include_in_schema=False)
async def take_checks(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[Any]:
    """Tries it, and shows what came of it."""
    authorize(visit.actor, verbs.CHECKS_RUN.action)
    fields = await read_fields(visit.request)
    server = await _server(visit, server_id)
    form, checks, status = FormView(values=fields.values()), (), 200
    try:
        order: ChecksRun = forms.checks_of(fields)
        done = await service.read(visit.context, visit.actor, server_id, verbs.CHECKS_RUN, order)
        checks = tuple(check_view(each) for each in done.results[:MAX_ROWS])
    except Refusal as refusal:
        form, status = refused(fields.values(), refusal), UNPROCESSABLE
    view = ChecksView(
        server_id=server.id, server_name=server.name, form=form, checks=checks, done=status != UNPROCESSABLE
    )
    return visit.dialog("orders/_checks.html", "Checks", status=status, order_form=view)


@get("/servers/{server_id:int}/orders/certificates", include_in_schema=False)
async def show_certificates(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[bytes]:
    """The domain certificates of a server, and a form that makes one."""
    authorize(visit.actor, verbs.CERTS_LIST.action)
    return await _certificates(visit, server_id, FormView(values={}))


@post("/servers/{server_id:int}/orders/certificates", include_in_schema=False)
async def take_certificate(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[Any]:
    """Makes a self-signed certificate."""
    authorize(visit.actor, verbs.CERTS_GENERATE.action)
    fields = await read_fields(visit.request)
    try:
        body = forms.certificate_of(fields)
        return await _order(visit, server_id, verbs.CERTS_GENERATE, body, "The certificate is being made")
    except Invalid as refusal:
        return await _certificates(visit, server_id, refused(fields.values(), refusal), UNPROCESSABLE)


@get("/servers/{server_id:int}/orders/config", include_in_schema=False)
async def show_config(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[bytes]:
    """The running configuration, without secrets."""
    authorize(visit.actor, verbs.XRAY_CONFIG.action)
    server, text, error = await _server(visit, server_id), "", ""
    try:
        held = await service.read(visit.context, visit.actor, server_id, verbs.XRAY_CONFIG, NOTHING)
        text = forms.as_json(shown(held.config))
    except Refusal as refusal:
        error = refusal.text
    view = ConfigView(server_id=server.id, server_name=server.name, text=text, error=error)
    return visit.dialog("orders/_config.html", "Running configuration", config=view)


@post("/servers/{server_id:int}/orders/backup", include_in_schema=False)
async def take_backup(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Stream:
    """Fetches a backup as a file."""
    server, made = await service.backup(visit.context, visit.actor, server_id)
    return download(visit.context, server, made)


@get("/servers/{server_id:int}/orders/restore", include_in_schema=False)
async def show_restore(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[bytes]:
    """The form that takes a backup."""
    authorize(visit.actor, verbs.RESTORE.action)
    return await _form(visit, server_id, "orders/_restore.html", "Put a backup back")


@post("/servers/{server_id:int}/orders/restore", include_in_schema=False, request_max_body_size=UPLOAD_BYTES)
async def take_restore(visit: NamedDependency[Visit], server_id: FromPath[int]) -> Response[Any]:
    """Puts a backup back."""
    authorize(visit.actor, verbs.RESTORE.action)
    upload = (await visit.request.form()).get("archive")
    try:
        if not isinstance(upload, UploadFile):
            raise invalid("archive", "Choose the file of a backup.")
        if visit.context.transfers is None:
            raise BusUnavailable
        with visit.context.transfers.new_file() as file:
            while chunk := await upload.read(CHUNK_BYTES):
                await asyncio.to_thread(file.write, chunk)
            done = await service.restore(visit.context, visit.actor, server_id, file)
    except Refusal as refusal:
        return await _form(
            visit, server_id, "orders/_restore.html", "Put a backup back", refused({"archive": ""}, refusal)
        )
    count = len(done.certificates) + len(done.geo_files)
    return visit.done(f"/servers/{server_id}/orders", f"{count} files put back", "servers-changed")


async def _server(visit: Visit, server_id: int) -> Server:
    return (await get_server(visit.context, visit.actor, server_id)).server


async def _form(
    visit: Visit, server_id: int, template: str, title: str, form: FormView | None = None
) -> Response[bytes]:
    """A form; with what was wrong when it comes back."""
    server = await _server(visit, server_id)
    view = OrderFormView(server_id=server.id, server_name=server.name, form=form or FormView(values={}))
    return visit.dialog(template, title, status=200 if form is None else UNPROCESSABLE, order_form=view)


async def _order(visit: Visit, server_id: int, verb: Verb[Any, Any], body: Message, words: str) -> Response[Any]:
    given = await service.order(visit.context, visit.actor, server_id, verb, body)
    if not given.online:
        words = "The server is offline: the order waits for it, ten minutes at most"
    elif given.joined:
        words = "The same was already ordered and waits"
    if not is_htmx(visit.request.headers):
        return Redirect(visit.url(f"/servers/{server_id}/orders"), status_code=303)
    return visit.done("/tasks", words, "tasks-changed", "orders-changed")


async def _certificates(visit: Visit, server_id: int, form: FormView, status: int = 200) -> Response[bytes]:
    server, error = await _server(visit, server_id), ""
    found = CertificateList()
    try:
        found = await service.read(visit.context, visit.actor, server_id, verbs.CERTS_LIST, NOTHING)
    except Refusal as refusal:
        error = refusal.text
    view = CertificatesView(
        server_id=server.id,
        server_name=server.name,
        form=form,
        certificates=tuple(certificate_view(each) for each in found.certificates[:MAX_ROWS]),
        error=error,
        may_write=may(visit.actor, verbs.CERTS_GENERATE.action),
    )
    return visit.dialog("orders/_certificates.html", "Certificates", status=status, order_form=view)


DOORS = (
    show_orders, show_stop, take_stop, take_start, take_restart, show_install, take_install,
    show_geofiles, take_geofiles, show_checks, take_checks, show_certificates, take_certificate,
    show_config, take_backup, show_restore, take_restore,
)  # fmt: skip
