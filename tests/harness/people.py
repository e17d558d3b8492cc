"""Several admins for tests: made by their services, with sessions, tokens and authenticator apps."""

import base64
from dataclasses import dataclass

from harness.controller import PASSWORD
from xfleet_controller.account import service as account
from xfleet_controller.admins import service as admins
from xfleet_controller.auth import service as auth
from xfleet_controller.auth import totp
from xfleet_controller.auth.rights import OWNER, SYSTEM, Actor
from xfleet_controller.context import Context
from xfleet_controller.tokens import service as tokens
from xfleet_runtime.clock import FakeClock

HOME, ELSEWHERE = "192.0.2.1", "203.0.113.9"


async def add_admin(context: Context, name: str, role: str = OWNER) -> Actor:
    """An admin of this role, signed in from home by a browser."""
    await admins.create_admin(context, SYSTEM, admins.AdminNew(name=name, role=role, password=PASSWORD))
    return await enter(context, name)


async def enter(context: Context, name: str, *, address: str = HOME, code: str = "", kind: str = "cookie") -> Actor:
    """Who has just signed in."""
    made = await auth.sign_in(context, name, PASSWORD, address=address, kind=kind, code=code)
    return made.actor


async def token_of(context: Context, actor: Actor, *scopes: str, days: int = 30) -> str:
    """An API token the actor made."""
    made = await tokens.create_token(context, actor, tokens.TokenNew(name="script", scopes=list(scopes), days=days))
    return made.token


async def bearer(context: Context, token: str) -> Actor:
    """Whom the API sees behind a token."""
    return await auth.who_is(context, token, kind="bearer", address=ELSEWHERE)


@dataclass
class App:
    """An authenticator app that knows one secret, and the recovery codes on paper beside it."""

    clock: FakeClock
    secret: bytes
    recovery_codes: tuple[str, ...] = ()

    def code(self, steps: int = 0) -> str:
        """The code shown now, or some steps away."""
        return totp.code_at(self.secret, int(self.clock.now().timestamp()) // totp.STEP_S + steps)

    def wrong(self) -> str:
        """Six digits the app does not show around now."""
        near = {self.code(steps) for steps in range(-2, 3)}
        return next(text for number in range(9) if (text := f"{number:06}") not in near)


async def with_totp(context: Context, clock: FakeClock, actor: Actor) -> App:
    """Sets up a second factor for the actor; the step of its first code is over."""
    made = await account.begin_totp(context, actor, PASSWORD)
    app = App(clock, decode(made.secret))
    app.recovery_codes = await account.confirm_totp(context, actor, app.code())
    clock.advance(2 * totp.STEP_S)
    return app


def decode(text: str) -> bytes:
    """The secret as an app takes it."""
    return base64.b32decode(text + "=" * (-len(text) % 8))
