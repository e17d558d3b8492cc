"""Goes through every door of a controller as everybody there is: strangers, roles, tokens."""

import asyncio
import re
import types
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import httpx
import msgspec
from litestar import Litestar

from harness.hostile import whole_app
from xfleet_controller import edge
from xfleet_controller.auth.models import Admin, ApiToken, Session
from xfleet_controller.auth.rights import ACTIONS
from xfleet_controller.auth.service import TOKEN_PREFIX, csrf_token_of, hash_token
from xfleet_controller.bot.models import BotBinding
from xfleet_controller.context import Context
from xfleet_controller.pages import panel_pages
from xfleet_controller.web_app import create_litestar
from xfleet_runtime.ids import new_token

API = "/api/v1/"
NUMBER = "999999"
"""An id nobody has: whoever gets through finds nothing, and breaks nothing."""
SERVER = "1"
"""The one server there is: what a page says of a server nobody has, it says to everybody."""
STREAM_S = 2.0
"""A live stream that still talks after this has let somebody in."""
ANSWER_S = 60.0
"""Every other door answers; a machine under load needs its time."""
SCALARS: dict[Any, Any] = {int: 1, float: 1.0, str: "x", bool: True, datetime: "2026-01-01T00:00:00Z", bytes: ""}


class Route(NamedTuple):
    """One handler as it is found in the application."""

    method: str
    path: str
    body: Any
    """The least its decoder takes; None for a handler without a body."""

    @property
    def name(self) -> str:
        """As the table of doors names it."""
        return f"{self.method} {self.path}"

    @property
    def url(self) -> str:
        """The path with something in place of its parameters."""
        return re.sub(r"\{(\w+):(\w+)\}", lambda found: self._value(found[1], found[2]), self.path)

    @property
    def deletes(self) -> bool:
        """Whether what is named is gone afterwards."""
        return self.method == "DELETE" or self.path.endswith("/delete")

    @property
    def changes(self) -> bool:
        """Whether it is meant to change something."""
        return self.method not in edge.SAFE_METHODS

    @property
    def is_api(self) -> bool:
        """Whether it answers in JSON."""
        return self.path.startswith(API)

    def _value(self, name: str, kind: str) -> str:
        if name == "server_id" and not self.deletes:
            return SERVER
        if kind == "int":
            return NUMBER
        return {"form": "csv", "path": "openapi.json"}.get(name, "x")


def find_routes(context: Context) -> Iterator[Route]:
    """Every handler of the whole application."""
    pages = panel_pages(context)
    app: Litestar = create_litestar(context, pages=pages.handlers, html_error=pages.html_error)
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            taken = handler.parsed_fn_signature.parameters.get("data")
            body = None if taken is None else sample_of(taken.annotation)
            for method in sorted(handler.http_methods - {"OPTIONS"}):
                yield Route(method, route.path, body)


def sample_of(kind: Any) -> Any:
    """The least value of a type that its decoder takes; fields that may be left out are."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return sample_of(parts[0])
    if origin is Literal:
        return parts[0]
    if origin in {Union, types.UnionType}:
        return sample_of(next(part for part in parts if part not in {type(None), msgspec.UnsetType}))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = [field for field in msgspec.structs.fields(kind) if field.required]
        return {field.encode_name: sample_of(field.type) for field in fields}
    if (origin or kind) in {list, tuple, set, frozenset}:
        return []
    return {} if (origin or kind) is dict else SCALARS.get(kind, {})


class Walker:
    """Admins of every role, and a client to come with their sessions or tokens."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._admins: dict[str, int] = {}
        transport = httpx.ASGITransport(whole_app(context), client=("203.0.113.9", 1), raise_app_exceptions=False)
        self._http = httpx.AsyncClient(transport=transport, base_url="http://panel.test")

    async def close(self) -> None:
        """Ends the client."""
        await self._http.aclose()

    async def add_admins(self, roles: Iterable[str]) -> None:
        """One admin of each role, with a Telegram account whose id is the admin's; and an owner who stays."""
        now = self._context.clock.now()
        async with self._context.database.write() as session:
            for name, role in {"keeper": "owner", **{role: role for role in roles}}.items():
                admin = Admin(
                    name=name, name_key=name, password_hash="!", role=role, created_at=now, password_changed_at=now
                )
                session.add(admin)
                await session.flush()
                self._admins[name] = admin.id
                session.add(BotBinding(telegram_id=admin.id, admin_id=admin.id, created_at=now))

    def telegram_id(self, role: str) -> int:
        """The Telegram account of a role's admin."""
        return self._admins[role]

    def proof_of(self, cookie: str) -> str:
        """What the forms of a session carry."""
        return csrf_token_of(cookie)

    async def sessions(self, role: str, count: int) -> list[str]:
        """Fresh sessions of a role's admin: some doors end them all."""
        now, tokens = self._context.clock.now(), [new_token() for _ in range(count)]
        async with self._context.database.write() as session:
            session.add_all(
                Session(
                    token_sha256=hash_token(token), admin_id=self._admins[role], kind="cookie", created_at=now,
                    last_used_at=now, expires_at=now + timedelta(days=1),
                )
                for token in tokens
            )  # fmt: skip
        return tokens

    async def token(self, role: str, scopes: Iterable[str]) -> str:
        """An API token, written into the database whatever its admin could have made."""
        now, token = self._context.clock.now(), f"{TOKEN_PREFIX}{new_token()}"
        async with self._context.database.write() as session:
            session.add(
                ApiToken(
                    admin_id=self._admins[role], name="walk", token_sha256=hash_token(token), scopes=list(scopes),
                    created_at=now, last_used_at=now, expires_at=now + timedelta(days=1),
                )
            )  # fmt: skip
        return token

    async def go(self, route: Route, *, cookie: str = "", token: str = "", **headers: str) -> httpx.Response | None:
        """The answer at a door; None when it keeps talking. A cookie brings its own proof, unless headers say else."""
        self._http.cookies.clear()
        sent = dict(headers)
        if cookie:
            sent["cookie"] = f"{edge.cookie_name(self._context)}={cookie}"
            sent.setdefault("x-csrf-token", csrf_token_of(cookie))
        if token:
            sent["authorization"] = f"Bearer {token}"
        body = {"json": route.body} if route.body is not None else {}
        endless = edge.ENDLESS.fullmatch(route.url.partition("?")[0]) is not None
        try:
            async with asyncio.timeout(STREAM_S if endless else ANSWER_S):
                return await self._http.request(route.method, route.url, headers=sent, **body)
        except TimeoutError:
            if endless:
                return None
            raise


def all_but(scope: str) -> list[str]:
    """Every action a token can name, save what this scope needs."""
    return [action for action in ACTIONS if action not in scope.split("+")]


def verdict_of(route: Route, answer: httpx.Response | None) -> str:
    """`in`, `stranger` (not signed in), `forbidden`, `csrf`, or `broken`."""
    if answer is None:
        return "in"
    code = _code_of(answer) if route.is_api else ""
    sent_away = answer.status_code == httpx.codes.SEE_OTHER and answer.headers["location"].startswith("/login")
    if code == "not_signed_in" or (sent_away and "set-cookie" not in answer.headers):
        return "stranger"
    if answer.status_code == httpx.codes.FORBIDDEN:
        return code or ("csrf" if "did not come from the panel" in answer.text else "forbidden")
    return "broken" if answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR else "in"


def _code_of(answer: httpx.Response) -> str:
    try:
        found = answer.json()
    except ValueError:
        return ""
    return str(found.get("code", "")) if isinstance(found, dict) else ""
