"""`/api/v1/settings/retention`: how long things are kept."""

from litestar import Controller, get, put
from litestar.params import JSONBody

from xfleet_controller.edge import TheActor, TheContext
from xfleet_controller.upkeep import service
from xfleet_controller.upkeep.retention import Retention


class RetentionApi(Controller):
    """How long things are kept."""

    path = "/settings/retention"
    tags = ["settings"]

    @get(summary="How long things are kept")
    async def show(self, context: TheContext, actor: TheActor) -> Retention:
        """The defaults when nobody changed them."""
        return await service.get_retention(context, actor)

    @put(summary="Change how long things are kept")
    async def change(self, context: TheContext, actor: TheActor, data: JSONBody[Retention]) -> Retention:
        """Fields that are left out get their defaults."""
        return await service.change_retention(context, actor, data)
