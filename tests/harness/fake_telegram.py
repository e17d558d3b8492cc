"""A Bot API server of our own on loopback: people write to the bot, and tests read what it answers."""

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

TOKEN = "4242:AAfaketokenAAfaketokenAAfaketokenAA"


class FakeTelegram:
    """Knows one bot; updates wait until it polls, answers are kept by chat."""

    def __init__(self, token: str = TOKEN) -> None:
        self.token = token
        self.base = ""
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.fail_next: list[tuple[int, dict[str, Any]]] = []
        """Answers (status, body) given to the next calls instead of the right ones."""
        self._updates: list[dict[str, Any]] = []
        self._next_update_id = 1
        self._sent: dict[int, list[str]] = defaultdict(list)
        self._news = asyncio.Condition()

    async def says(self, person: int, text: str, *, chat: int | None = None, chat_type: str = "private") -> None:
        """A person writes this to the bot."""
        async with self._news:
            at = self._next_update_id
            self._next_update_id += 1
            message = {
                "message_id": at,
                "date": 1_760_000_000,
                "chat": {"id": chat or person, "type": chat_type},
                "from": {"id": person, "is_bot": False, "first_name": "Ada", "last_name": "<b>&"},
                "text": text,
            }
            if text.startswith("/"):
                message["entities"] = [{"type": "bot_command", "offset": 0, "length": len(text.split(maxsplit=1)[0])}]
            self._updates.append({"update_id": at, "message": message})
            self._news.notify_all()

    async def answers(self, chat: int, count: int = 1, *, within_s: float = 10.0) -> list[str]:
        """The first `count` texts sent to this chat since last asked; fails when they do not come."""
        async with asyncio.timeout(within_s), self._news:
            await self._news.wait_for(lambda: len(self._sent[chat]) >= count)
            taken, self._sent[chat] = self._sent[chat][:count], self._sent[chat][count:]
            return taken

    async def asks(self, person: int, text: str, *, within_s: float = 10.0) -> str:
        """A person writes, and gets this answer."""
        await self.says(person, text)
        return (await self.answers(person, within_s=within_s))[0]

    async def wait_for_call(self, holds: Callable[[str], bool], *, within_s: float = 10.0) -> None:
        """Returns once a method whose name satisfies this was called."""
        async with asyncio.timeout(within_s), self._news:
            await self._news.wait_for(lambda: any(holds(method) for method, _ in self.calls))

    def sent(self, chat: int) -> list[str]:
        """What was sent to this chat and not yet taken."""
        return list(self._sent[chat])

    async def handle(self, request: web.Request) -> web.Response:
        """One call of the Bot API."""
        match = re.fullmatch(r"/bot([^/]+)/(\w+)", request.path)
        if match is None or match.group(1) != self.token:
            return web.json_response({"ok": False, "error_code": 401, "description": "Unauthorized"}, status=401)
        method, given = match.group(2), await _parameters(request)
        async with self._news:
            self.calls.append((method, given))
            self._news.notify_all()
        if self.fail_next:
            status, body = self.fail_next.pop(0)
            return web.json_response(body, status=status)
        answer = getattr(self, f"_on_{method}", None)
        if answer is None:
            return web.json_response({"ok": False, "error_code": 404, "description": "Not Found"}, status=404)
        return web.json_response({"ok": True, "result": await answer(given)})

    async def _on_getMe(self, given: dict[str, Any]) -> Any:  # noqa: N802
        return {"id": 4242, "is_bot": True, "first_name": "xfleet", "username": "xfleet_bot"}

    async def _on_setMyCommands(self, given: dict[str, Any]) -> Any:  # noqa: N802
        return True

    async def _on_getUpdates(self, given: dict[str, Any]) -> Any:  # noqa: N802
        offset, timeout_s = int(given.get("offset") or 0), float(given.get("timeout") or 0)
        async with self._news:
            self._updates = [update for update in self._updates if update["update_id"] >= offset]
            try:
                async with asyncio.timeout(min(timeout_s, 2.0)):
                    await self._news.wait_for(lambda: bool(self._updates))
            except TimeoutError:
                return []
            return list(self._updates)

    async def _on_sendMessage(self, given: dict[str, Any]) -> Any:  # noqa: N802
        chat, text = int(given["chat_id"]), str(given["text"])
        async with self._news:
            self._sent[chat].append(text)
            self._news.notify_all()
        return {"message_id": 1, "date": 1_760_000_000, "chat": {"id": chat, "type": "private"}, "text": text}


async def _parameters(request: web.Request) -> dict[str, Any]:
    if request.content_type == "application/json":
        return dict(await request.json())
    return {key: value for key, value in (await request.post()).items() if isinstance(value, str)}


@asynccontextmanager
async def fake_telegram() -> AsyncIterator[FakeTelegram]:
    """A Bot API on a free loopback port; `base` is its address."""
    telegram = FakeTelegram()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", telegram.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    telegram.base = f"http://127.0.0.1:{port}"
    try:
        yield telegram
    finally:
        await runner.cleanup()
