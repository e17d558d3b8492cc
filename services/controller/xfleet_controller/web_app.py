"""The HTTP application: all doors, one place for errors, headers and OpenAPI."""

from collections.abc import Sequence
from typing import Any

from litestar import Litestar, Request, Router, get
from litestar.datastructures import State
from litestar.di import Provide
from litestar.enums import OpenAPIMediaType
from litestar.logging.config import LoggingConfig
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import ASGIApp, ControllerRouterHandler

from xfleet_controller import edge
from xfleet_controller.account.api import AccountApi
from xfleet_controller.admins.api import AdminApi, InviteApi
from xfleet_controller.api import BASE
from xfleet_controller.audit.api import AuditApi
from xfleet_controller.auth.api import SessionApi
from xfleet_controller.backups.api import BackupApi
from xfleet_controller.bodies import StrictRequest
from xfleet_controller.bot.api import BotApi
from xfleet_controller.clients.api import ClientApi
from xfleet_controller.context import Context
from xfleet_controller.edge import HtmlError
from xfleet_controller.fleet.api import AgentDoor, CertificateApi
from xfleet_controller.inbounds.api import InboundApi
from xfleet_controller.install.web import InstallDoor
from xfleet_controller.joining.api import JoiningApi
from xfleet_controller.logs.api import LogApi
from xfleet_controller.operations import OperationsDoor
from xfleet_controller.orders.api import OrderApi
from xfleet_controller.rollouts.api import RolloutApi
from xfleet_controller.servers.api import ServerApi
from xfleet_controller.servers.state_api import ServerStateApi
from xfleet_controller.subscriptions.api import SubscriptionDoor
from xfleet_controller.tasks.api import TaskApi
from xfleet_controller.tokens.api import TokenApi
from xfleet_controller.traffic.api import ClientTrafficApi, TrafficApi
from xfleet_controller.upkeep.api import RetentionApi


def create_web_app(
    context: Context,
    *,
    pages: Sequence[ControllerRouterHandler] = (),
    html_error: HtmlError | None = None,
    state: dict[str, Any] | None = None,
) -> ASGIApp:
    """The application below the configured base path, as ASGI; `pages` are the panel's doors."""
    app = create_litestar(context, pages=pages, html_error=html_error, state=state)
    return edge.around(app, context.settings.prefix)


def create_litestar(
    context: Context,
    *,
    pages: Sequence[ControllerRouterHandler] = (),
    html_error: HtmlError | None = None,
    state: dict[str, Any] | None = None,
) -> Litestar:
    """The application without the edge around it: its routes can be listed."""
    api = Router(
        path=BASE,
        route_handlers=[
            SessionApi,
            AccountApi,
            ServerApi,
            ServerStateApi,
            OrderApi,
            LogApi,
            CertificateApi,
            JoiningApi,
            InboundApi,
            ClientApi,
            ClientTrafficApi,
            TaskApi,
            TrafficApi,
            BotApi,
            BackupApi,
            RetentionApi,
            RolloutApi,
            AdminApi,
            InviteApi,
            TokenApi,
            AuditApi,
            show_openapi,
        ],
        guards=[edge.for_sessions],
        request_class=StrictRequest,
    )  # fmt: skip
    return Litestar(
        route_handlers=[api, AgentDoor, SubscriptionDoor, InstallDoor, OperationsDoor, *pages],
        path=context.settings.prefix or "/",
        dependencies={
            "context": Provide(edge.provide_context, sync_to_thread=False),
            "actor": Provide(edge.provide_actor),
        },
        exception_handlers=edge.exception_handlers(html_error),
        request_max_body_size=edge.MAX_BODY_BYTES,
        openapi_config=_openapi(),
        logging_config=LoggingConfig(configure_root_logger=False, log_exceptions="never"),
        state=State({"context": context} | (state or {})),
        debug=False,
    )


def create_side_door(context: Context) -> ASGIApp:
    """`/install/` and nothing else, without the base path."""
    app = Litestar(
        route_handlers=[InstallDoor],
        dependencies={"context": Provide(edge.provide_context, sync_to_thread=False)},
        exception_handlers=edge.exception_handlers(None),
        openapi_config=None,
        logging_config=LoggingConfig(configure_root_logger=False, log_exceptions="never"),
        state=State({"context": context}),
    )
    return edge.around(app, "")


@get("/openapi.json", include_in_schema=False, media_type=OpenAPIMediaType.OPENAPI_JSON)
async def show_openapi(request: Request[Any, Any, Any], actor: edge.TheActor) -> dict[str, Any]:  # noqa: ARG001  a session
    """The API's own description, for whoever may use it."""
    return request.app.openapi_schema.to_schema()


def _openapi() -> OpenAPIConfig:
    bearer = SecurityScheme(type="http", scheme="bearer", description="The token of `POST /api/v1/session`.")
    return OpenAPIConfig(
        title="xfleet",
        version="1",
        description="Every action of the panel as JSON. Errors are problem details with a stable word `code`.",
        openapi_router=Router(path=f"{BASE}/schema", route_handlers=[], guards=[edge.for_sessions]),
        render_plugins=[JsonRenderPlugin(path="/openapi.json")],
        components=Components(security_schemes={"bearer": bearer}),
        security=[{"bearer": []}],
    )
