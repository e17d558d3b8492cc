"""The edge between Telegram and the handlers: throttles, and says in words what went wrong."""

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from aiogram import BaseMiddleware
from aiogram.exceptions import TelegramAPIError
from aiogram.types import Message, TelegramObject

from xfleet_bot import texts
from xfleet_bot.throttle import Throttle
from xfleet_contracts.errors import Refusal
from xfleet_runtime.broker import BrokerOutage
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
Handler = Callable[[TelegramObject, dict[str, Any]], Awaitable[Any]]


class Edge(BaseMiddleware):
    """Around every message."""

    def __init__(self, throttle: Throttle) -> None:
        self._throttle = throttle

    async def __call__(self, handler: Handler, event: TelegramObject, data: dict[str, Any]) -> Any:
        """Answers for a handler that could not."""
        if not isinstance(event, Message) or event.from_user is None:
            return None
        if not self._throttle.allows(event.from_user.id):
            _log.info("message throttled", telegram_id=event.from_user.id)
            return None
        try:
            return await handler(event, data)
        except Refusal as refusal:
            await event.answer(texts.refusal(refusal.text))
        except BrokerOutage as outage:
            _log.warning("panel not reached", reason=str(outage))
            await event.answer(texts.UNREACHABLE)
        except TelegramAPIError:
            raise
        except Exception:  # noqa: BLE001  the edge between Telegram and handlers
            error_id = secrets.token_hex(4)
            _log.exception("handler failed", error_id=error_id)
            await event.answer(texts.FAILED.format(error_id=error_id))
        return None
