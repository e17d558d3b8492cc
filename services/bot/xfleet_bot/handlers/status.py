"""How the fleet is."""

from aiogram import Router
from aiogram.filters import Command
from aiogram.types import Message

from xfleet_bot import texts
from xfleet_bot.panel import Panel
from xfleet_contracts.control import NotBound
from xfleet_contracts.errors import RemoteRefusal


def make_router() -> Router:
    """Handler of /status."""
    router = Router(name="status")
    router.message.register(on_status, Command("status"))
    return router


async def on_status(message: Message, panel: Panel) -> None:
    """Servers, clients online and traffic, for a bound admin."""
    assert message.from_user is not None  # noqa: S101  the router's filter saw to it
    try:
        fleet = await panel.status(message.from_user.id)
    except RemoteRefusal as refusal:
        if refusal.remote_code != NotBound.code:
            raise
        await message.answer(texts.HOW_TO_BIND)
    else:
        await message.answer(texts.status(fleet))
