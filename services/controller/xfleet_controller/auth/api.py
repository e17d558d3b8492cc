"""`/api/v1/session`."""

from typing import Any

import msgspec
from litestar import Controller, Request, delete, get, post
from litestar.params import JSONBody
from litestar.status_codes import HTTP_201_CREATED, HTTP_204_NO_CONTENT

from xfleet_controller.auth import service
from xfleet_controller.edge import TheActor, TheContext, client_address, refuse_cross_site


class SignIn(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Name and password, and a code where a second factor is on."""

    username: str
    password: str
    code: str = ""
    """Of the authenticator app, or a recovery code; asked for by the refusal `totp_required`."""


class TokenOut(msgspec.Struct, kw_only=True):
    """A session's token, shown once; send it as `Authorization: Bearer`."""

    token: str


class SessionOut(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Who is signed in."""

    username: str
    role: str
    token_name: str = ""
    """Of the API token, where one asks."""
    scopes: list[str] | None = None
    """What the API token is bound to; null: all of the role."""


class SessionApi(Controller):
    """Signing in and out."""

    path = "/session"
    tags = ["session"]

    @post(status_code=HTTP_201_CREATED, summary="Sign in", open_to_all=True)
    async def sign_in(self, request: Request[Any, Any, Any], context: TheContext, data: JSONBody[SignIn]) -> TokenOut:
        """A new session for name and password."""
        refuse_cross_site(request)
        signed_in = await service.sign_in(
            context,
            data.username,
            data.password,
            address=client_address(request),
            user_agent=request.headers.get("user-agent", ""),
            code=data.code,
        )
        return TokenOut(token=signed_in.token)

    @get(summary="Who am I")
    async def show(self, actor: TheActor) -> SessionOut:
        """Who is signed in with this token."""
        scopes = None if actor.scopes is None else sorted(actor.scopes)
        return SessionOut(username=actor.name, role=actor.role, token_name=actor.token_name, scopes=scopes)

    @delete(status_code=HTTP_204_NO_CONTENT, summary="Sign out")
    async def sign_out(self, context: TheContext, actor: TheActor) -> None:
        """Ends this session."""
        await service.sign_out(context, actor)
