"""Asks Telegram for messages for ever; an unreachable Telegram is waited out, a refused token is not."""

import asyncio

from aiogram import Bot, Dispatcher
from aiogram.exceptions import (
    TelegramAPIError,
    TelegramConflictError,
    TelegramNotFound,
    TelegramRetryAfter,
    TelegramUnauthorizedError,
)
from aiogram.types import BotCommand, Update

from xfleet_runtime.backoff import Backoff
from xfleet_runtime.errors import Unusable
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
POLL_TIMEOUT_S = 25
ANSWER_TIMEOUT_S = 15
MAX_AT_ONCE = 32
COMMANDS = (
    BotCommand(command="status", description="Servers, clients online, traffic"),
    BotCommand(command="start", description="Who you are here, or how to bind this account"),
    BotCommand(command="help", description="What you can ask"),
)


async def poll(bot: Bot, dispatcher: Dispatcher) -> None:
    """Hands every update to the dispatcher, for ever. Raises `Unusable` when Telegram refuses the token."""
    backoff = Backoff(first_s=1.0, most_s=30.0)
    room = asyncio.Semaphore(MAX_AT_ONCE)
    offset: int | None = None
    introduced = False
    async with asyncio.TaskGroup() as group:
        while True:
            try:
                if not introduced:
                    await bot.set_my_commands(list(COMMANDS), request_timeout=ANSWER_TIMEOUT_S)
                    introduced = True
                    _log.info("bot listens to Telegram")
                updates = await bot.get_updates(
                    offset=offset,
                    timeout=POLL_TIMEOUT_S,
                    allowed_updates=["message"],
                    request_timeout=POLL_TIMEOUT_S + ANSWER_TIMEOUT_S,
                )
            except TelegramAPIError as error:
                await asyncio.sleep(_wait_after(error, backoff))
                continue
            backoff.reset()
            for update in updates:
                offset = update.update_id + 1
                await room.acquire()
                group.create_task(_handle(bot, dispatcher, update, room))


def _wait_after(error: TelegramAPIError, backoff: Backoff) -> float:
    if isinstance(error, (TelegramUnauthorizedError, TelegramNotFound)):
        raise Unusable(f"Telegram refuses the bot token ({error.message}). Get a new one from @BotFather.") from error
    if isinstance(error, TelegramRetryAfter):
        return float(error.retry_after)
    if isinstance(error, TelegramConflictError):
        _log.warning("another program uses the same bot token; only one may")
    else:
        _log.warning("Telegram not reached", reason=error.message)
    return backoff.next_s()


async def _handle(bot: Bot, dispatcher: Dispatcher, update: Update, room: asyncio.Semaphore) -> None:
    try:
        await dispatcher.feed_update(bot, update)
    except TelegramAPIError as error:
        _log.warning("an answer did not reach Telegram", reason=error.message)
    finally:
        room.release()
