"""Who somebody is, and binding an account by a one-time bot code."""

from aiogram import F, Router
from aiogram.filters import Command, CommandObject, CommandStart
from aiogram.types import Message

from xfleet_bot import texts
from xfleet_bot.panel import Panel
from xfleet_contracts.control import NotBound
from xfleet_contracts.errors import RemoteRefusal

MAX_CODE_CHARS = 64


def make_router() -> Router:
    """Handlers of /start, /help, and of a bare code."""
    router = Router(name="start")
    router.message.register(on_start, CommandStart())
    router.message.register(on_help, Command("help"))
    router.message.register(on_text, F.text, ~F.text.startswith("/"))
    router.message.register(on_help, F.text)
    return router


async def on_start(message: Message, command: CommandObject, panel: Panel) -> None:
    """`/start CODE` binds; a bare `/start` tells who one is."""
    if command.args:
        await _bind(message, command.args, panel)
    else:
        await _greet(message, panel)


async def on_text(message: Message, panel: Panel) -> None:
    """One word may be a bot code; somebody bound already gets help instead."""
    words = (message.text or "").split()
    if len(words) != 1:
        await _greet(message, panel)
        return
    try:
        await panel.whoami(_sender(message))
    except RemoteRefusal as refusal:
        if refusal.remote_code != NotBound.code:
            raise
        await _bind(message, words[0], panel)
    else:
        await message.answer(texts.HELP)


async def on_help(message: Message) -> None:
    """The list of commands."""
    await message.answer(texts.HELP)


async def _greet(message: Message, panel: Panel) -> None:
    try:
        actor = await panel.whoami(_sender(message))
    except RemoteRefusal as refusal:
        if refusal.remote_code != NotBound.code:
            raise
        await message.answer(texts.HOW_TO_BIND)
    else:
        await message.answer(texts.welcome(actor))


async def _bind(message: Message, code: str, panel: Panel) -> None:
    user = message.from_user
    name = user.full_name[:100] if user is not None else ""
    actor = await panel.bind(_sender(message), code.strip()[:MAX_CODE_CHARS], name)
    await message.answer(texts.bound(actor))


def _sender(message: Message) -> int:
    assert message.from_user is not None  # noqa: S101  the router's filter saw to it
    return message.from_user.id
