"""`/api/v1/session` and the own account."""

from datetime import datetime
from typing import Any

import msgspec
from litestar import Controller, Request, delete, get, post
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED, HTTP_204_NO_CONTENT

from xfleet_controller.auth import service
from xfleet_controller.edge import TheActor, TheContext, client_address, refuse_cross_site


class SignIn(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Name and password."""

    username: str
    password: str


class TokenOut(msgspec.Struct, kw_only=True):
    """A session's token, shown once; send it as `Authorization: Bearer`."""

    token: str


class SessionOut(msgspec.Struct, kw_only=True):
    """Who is signed in."""

    username: str
    role: str


class PasswordChange(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The own password, old and new."""

    current_password: str
    new_password: str


class OpenSession(msgspec.Struct, kw_only=True):
    """One place the actor is signed in."""

    id: str
    kind: str
    address: str
    user_agent: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    current: bool


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
        )
        return TokenOut(token=signed_in.token)

    @get(summary="Who am I")
    async def show(self, actor: TheActor) -> SessionOut:
        """Who is signed in with this token."""
        return SessionOut(username=actor.name, role=actor.role)

    @delete(status_code=HTTP_204_NO_CONTENT, summary="Sign out")
    async def sign_out(self, context: TheContext, actor: TheActor) -> None:
        """Ends this session."""
        await service.sign_out(context, actor)


class AccountApi(Controller):
    """The own account."""

    path = "/account"
    tags = ["session"]

    @post("/password", status_code=HTTP_204_NO_CONTENT, summary="Change the own password")
    async def change_password(self, context: TheContext, actor: TheActor, data: JSONBody[PasswordChange]) -> None:
        """All other sessions end."""
        await service.change_password(context, actor, data.current_password, data.new_password)

    @get("/sessions", status_code=HTTP_200_OK, summary="Where I am signed in")
    async def list_sessions(self, context: TheContext, actor: TheActor) -> list[OpenSession]:
        """Newest use first."""
        return [
            OpenSession(
                id=row.token_sha256,
                kind=row.kind,
                address=row.address,
                user_agent=row.user_agent,
                created_at=row.created_at,
                last_used_at=row.last_used_at,
                expires_at=row.expires_at,
                current=row.token_sha256 == actor.session,
            )
            for row in await service.list_sessions(context, actor)
        ]

    @delete("/sessions/{session_id:str}", status_code=HTTP_204_NO_CONTENT, summary="End a session")
    async def revoke(self, context: TheContext, actor: TheActor, session_id: FromPath[str]) -> None:
        """Signs that place out."""
        await service.revoke_session(context, actor, session_id)
