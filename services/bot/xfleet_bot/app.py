"""Wires the bot: one link to the bus, one to Telegram."""

import asyncio

import msgspec
from aiogram import Bot, Dispatcher
from aiogram.client.default import DefaultBotProperties
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.enums import ParseMode
from aiogram.utils.token import TokenValidationError

from xfleet_bot.edge import Edge
from xfleet_bot.handlers import make_router
from xfleet_bot.panel import BusPanel, Panel
from xfleet_bot.poll import poll
from xfleet_bot.settings import BotSettings, token_of
from xfleet_bot.throttle import Throttle
from xfleet_runtime.broker import BrokerLink, Credentials, Disconnected
from xfleet_runtime.clock import Clock, SystemClock
from xfleet_runtime.errors import Unusable
from xfleet_runtime.log import get_logger
from xfleet_runtime.supervise import every, supervise

_log = get_logger(__name__)
FOLLOW_EVERY_S = 30.0


async def run_bot(settings: BotSettings) -> None:
    """Serves until cancelled. Raises `Unusable` for a broken credentials file or token."""
    credentials = _load_credentials(settings)
    bot = make_bot(token_of(settings), settings.bot_api_base)
    try:
        async with BrokerLink(credentials, name="bot") as link:
            following = asyncio.ensure_future(supervise("credentials", lambda: follow_credentials(link, settings)))
            try:
                await poll(bot, make_dispatcher(BusPanel(link), SystemClock()))
            finally:
                following.cancel()
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    finally:
        await bot.session.close()


def make_bot(token: str, api_base: str) -> Bot:
    """The Telegram side. Raises `Unusable` for a token that cannot be one."""
    session = AiohttpSession(api=TelegramAPIServer.from_base(api_base)) if api_base else AiohttpSession()
    try:
        return Bot(token, session=session, default=DefaultBotProperties(parse_mode=ParseMode.HTML))
    except TokenValidationError as error:
        raise Unusable("The bot token has not the form of one. Copy it again from @BotFather.") from error


def make_dispatcher(panel: Panel, clock: Clock) -> Dispatcher:
    """Handlers with what they need."""
    dispatcher = Dispatcher(panel=panel)
    dispatcher.message.outer_middleware(Edge(Throttle(clock)))
    dispatcher.include_router(make_router())
    return dispatcher


async def follow_credentials(link: BrokerLink, settings: BotSettings, *, every_s: float = FOLLOW_EVERY_S) -> None:
    """Moves to new credentials whenever the controller has written some."""

    async def step() -> None:
        fresh = await asyncio.to_thread(_load_credentials, settings)
        if fresh != link.credentials:
            await link.replace_credentials(fresh)

    while True:
        try:
            await every(every_s, step)
        except (Unusable, Disconnected) as error:
            _log.warning("new bus credentials cannot be used", reason=str(error))


def _load_credentials(settings: BotSettings) -> Credentials:
    file = settings.credentials_file
    try:
        credentials = msgspec.json.decode(file.read_bytes(), type=Credentials)
    except OSError as error:
        raise Unusable(
            f"Cannot read the bus credentials {file}: {error.strerror}. Check --credentials-file."
        ) from error
    except msgspec.MsgspecError as error:
        raise Unusable(
            f"The bus credentials {file} are broken: {error}. Have the controller make them again."
        ) from error
    credentials.check()
    return credentials
