"""`/sub/<id>`: what VPN apps ask for."""

from litestar import Controller, Response, get, head
from litestar.enums import MediaType
from litestar.params import FromPath, FromQuery

from xfleet_controller.edge import TheContext
from xfleet_controller.subscriptions import service


class SubscriptionDoor(Controller):
    """Subscriptions, open to whoever knows the id."""

    path = "/sub"
    include_in_schema = False

    @get("/{sub_id:str}", media_type=MediaType.TEXT)
    async def show(self, context: TheContext, sub_id: FromPath[str], format: FromQuery[str] = "") -> Response[str]:  # noqa: A002  in the URL
        """Share links, base64 or plain."""
        made = await service.make_subscription(context, sub_id, plain=format == "plain")
        return Response(made.body, media_type=MediaType.TEXT, headers=made.headers)

    @head("/{sub_id:str}", media_type=MediaType.TEXT)
    async def look(self, context: TheContext, sub_id: FromPath[str]) -> Response[None]:
        """The headers alone."""
        made = await service.make_subscription(context, sub_id, plain=False)
        return Response(None, media_type=MediaType.TEXT, headers=made.headers)
