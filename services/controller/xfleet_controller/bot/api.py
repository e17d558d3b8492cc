"""`/api/v1/bot`: codes that bind Telegram accounts."""

from datetime import datetime

import msgspec
from litestar import Controller, post

from xfleet_controller.bot import service
from xfleet_controller.edge import TheActor, TheContext


class CodeOut(msgspec.Struct, kw_only=True):
    """A one-time code; send it to the bot."""

    code: str
    expires_at: datetime


class BotApi(Controller):
    """The bot's side of an admin."""

    path = "/bot"
    tags = ["bot"]

    @post("/codes", summary="Make a bot code")
    async def make_code(self, context: TheContext, actor: TheActor) -> CodeOut:
        """Binds one Telegram account to the actor."""
        made = await service.make_code(context, actor)
        return CodeOut(code=made.code, expires_at=made.expires_at)
