"""What people can say to the bot, one file per subject; only private chats are listened to."""

from aiogram import F, Router

from xfleet_bot.handlers import start, status


def make_router() -> Router:
    """All handlers; anything that is no command may be a bot code, so `start` comes last."""
    router = Router(name="xfleet")
    router.message.filter(F.chat.type == "private", F.from_user)
    router.include_routers(status.make_router(), start.make_router())
    return router
