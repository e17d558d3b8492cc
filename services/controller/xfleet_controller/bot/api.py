"""`/api/v1/bot`: codes that bind Telegram accounts."""

from datetime import datetime

import msgspec
from litestar import Controller, delete, get, post
from litestar.params import FromPath
from litestar.status_codes import HTTP_204_NO_CONTENT

from xfleet_controller.bot import service
from xfleet_controller.edge import TheActor, TheContext


class CodeOut(msgspec.Struct, kw_only=True):
    """A one-time code; send it to the bot."""

    code: str
    expires_at: datetime


class BindingOut(msgspec.Struct, kw_only=True):
    """A Telegram account that acts for the actor."""

    telegram_id: int
    name: str
    created_at: datetime


class BotApi(Controller):
    """The bot's side of an admin."""

    path = "/bot"
    tags = ["bot"]

    @post("/codes", summary="Make a bot code")
    async def make_code(self, context: TheContext, actor: TheActor) -> CodeOut:
        """Binds one Telegram account to the actor."""
        made = await service.make_code(context, actor)
        return CodeOut(code=made.code, expires_at=made.expires_at)

    @get("/bindings", summary="List bound Telegram accounts")
    async def list_bindings(self, context: TheContext, actor: TheActor) -> list[BindingOut]:
        """Those that act for the actor."""
        return [
            BindingOut(telegram_id=row.telegram_id, name=row.name, created_at=row.created_at)
            for row in await service.list_bindings(context, actor)
        ]

    @delete("/bindings/{telegram_id:int}", status_code=HTTP_204_NO_CONTENT, summary="Unbind a Telegram account")
    async def unbind(self, context: TheContext, actor: TheActor, telegram_id: FromPath[int]) -> None:
        """It acts for nobody any more."""
        await service.unbind(context, actor, telegram_id)
