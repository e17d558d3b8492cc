"""`/api/v1/account`: what an admin does to the own account."""

from datetime import datetime

import msgspec
from litestar import Controller, delete, get, post
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK, HTTP_204_NO_CONTENT

from xfleet_controller.account import service
from xfleet_controller.account.service import SecondFactor, TotpSetup
from xfleet_controller.edge import TheActor, TheContext


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


class Password(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The own password, again."""

    password: str


class Code(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A code of the authenticator app."""

    code: str


class PasswordAndCode(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The own password, and a code of the authenticator app or a recovery code."""

    password: str
    code: str


class RecoveryCodes(msgspec.Struct, kw_only=True):
    """Each signs in once in place of a code of the app; shown once."""

    recovery_codes: tuple[str, ...]


class AccountApi(Controller):
    """The own account."""

    path = "/account"
    tags = ["account"]

    @post("/password", status_code=HTTP_204_NO_CONTENT, summary="Change the own password")
    async def change_password(self, context: TheContext, actor: TheActor, data: JSONBody[PasswordChange]) -> None:
        """All other sessions and all API tokens end."""
        await service.change_password(context, actor, data.current_password, data.new_password)

    @get("/sessions", status_code=HTTP_200_OK, summary="Where I am signed in")
    async def list_sessions(self, context: TheContext, actor: TheActor) -> list[OpenSession]:
        """Newest use first."""
        return [
            OpenSession(
                id=service.session_id(row),
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

    @delete("/sessions", status_code=HTTP_204_NO_CONTENT, summary="Sign out everywhere")
    async def sign_out_everywhere(self, context: TheContext, actor: TheActor) -> None:
        """Ends every session, this one too."""
        await service.sign_out_everywhere(context, actor)

    @delete("/sessions/{session_id:str}", status_code=HTTP_204_NO_CONTENT, summary="End a session")
    async def revoke(self, context: TheContext, actor: TheActor, session_id: FromPath[str]) -> None:
        """Signs that place out."""
        await service.revoke_session(context, actor, session_id)

    @get("/totp", summary="Whether a second factor is on")
    async def show_totp(self, context: TheContext, actor: TheActor) -> SecondFactor:
        """And how many recovery codes are left."""
        return await service.get_second_factor(context, actor)

    @post("/totp", summary="Begin to set up a second factor", status_code=HTTP_200_OK)
    async def begin_totp(self, context: TheContext, actor: TheActor, data: JSONBody[Password]) -> TotpSetup:
        """The secret for the authenticator app, shown once; a code of it turns the second factor on."""
        return await service.begin_totp(context, actor, data.password)

    @post("/totp/confirm", summary="Turn the second factor on", status_code=HTTP_200_OK)
    async def confirm_totp(self, context: TheContext, actor: TheActor, data: JSONBody[Code]) -> RecoveryCodes:
        """By a first code; other sessions end."""
        return RecoveryCodes(recovery_codes=await service.confirm_totp(context, actor, data.code))

    @post("/totp/disable", summary="Turn the second factor off", status_code=HTTP_204_NO_CONTENT)
    async def disable_totp(self, context: TheContext, actor: TheActor, data: JSONBody[PasswordAndCode]) -> None:
        """Needs password and code."""
        await service.disable_totp(context, actor, data.password, data.code)

    @post("/recovery-codes", summary="Make new recovery codes", status_code=HTTP_200_OK)
    async def renew_codes(self, context: TheContext, actor: TheActor, data: JSONBody[PasswordAndCode]) -> RecoveryCodes:
        """Older ones stop working."""
        codes = await service.renew_recovery_codes(context, actor, data.password, data.code)
        return RecoveryCodes(recovery_codes=codes)
