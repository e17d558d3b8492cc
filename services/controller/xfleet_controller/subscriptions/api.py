"""`/sub/<id>`: what VPN apps ask for."""

from typing import Annotated, Any

from litestar import Controller, Request, Response, get, head
from litestar.enums import MediaType
from litestar.params import FromPath, QueryParameter

from xfleet_controller.edge import TheContext
from xfleet_controller.subscriptions import service

Form = Annotated[str, QueryParameter(name="format", description="`plain`, or empty for base64.")]


class SubscriptionDoor(Controller):
    """Subscriptions, open to whoever knows the id."""

    path = "/sub"
    include_in_schema = False

    @get("/{sub_id:str}", media_type=MediaType.TEXT)
    async def show(
        self, request: Request[Any, Any, Any], context: TheContext, sub_id: FromPath[str], form: Form = ""
    ) -> Response[str]:
        """Share links: base64 for apps, readable for a browser or when asked for."""
        browser = "text/html" in request.headers.get("accept", "")
        made = await service.make_subscription(context, sub_id, plain=form == "plain" or (browser and not form))
        if browser:
            made.headers["content-disposition"] = "inline"
        return Response(made.body, media_type=MediaType.TEXT, headers=made.headers)

    @head("/{sub_id:str}", media_type=MediaType.TEXT)
    async def look(self, context: TheContext, sub_id: FromPath[str]) -> Response[None]:
        """The headers alone."""
        made = await service.make_subscription(context, sub_id, plain=False)
        return Response(None, media_type=MediaType.TEXT, headers=made.headers)
