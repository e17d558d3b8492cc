"""`/api/v1/tokens`: API tokens for scripts."""

from datetime import datetime

import msgspec
from litestar import Controller, delete, get, post
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_201_CREATED, HTTP_204_NO_CONTENT

from xfleet_controller.auth.models import ApiToken
from xfleet_controller.edge import TheActor, TheContext
from xfleet_controller.tokens import service
from xfleet_controller.tokens.service import TokenNew


class ApiTokenOut(msgspec.Struct, kw_only=True):
    """An API token, without what it is."""

    id: int
    name: str
    scopes: list[str]
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None


class ApiTokenMade(ApiTokenOut, kw_only=True):
    """A new API token; `token` is shown only here."""

    token: str


def token_fields(row: ApiToken) -> dict[str, object]:
    """The fields of `ApiTokenOut`."""
    names = ("id", "name", "scopes", "created_at", "last_used_at", "expires_at")
    return {name: getattr(row, name) for name in names}


class TokenApi(Controller):
    """Tokens by which scripts use this API."""

    path = "/tokens"
    tags = ["tokens"]

    @get(summary="List my API tokens")
    async def list_tokens(self, context: TheContext, actor: TheActor) -> list[ApiTokenOut]:
        """Newest first; revoked ones are left out."""
        rows = await service.list_tokens(context, actor)
        return [ApiTokenOut(**token_fields(row)) for row in rows]  # type: ignore[arg-type]

    @post(status_code=HTTP_201_CREATED, summary="Make an API token")
    async def create(self, context: TheContext, actor: TheActor, data: JSONBody[TokenNew]) -> ApiTokenMade:
        """Send it as `Authorization: Bearer`; it never does more than its admin may."""
        made = await service.create_token(context, actor, data)
        return ApiTokenMade(**token_fields(made.row), token=made.token)  # type: ignore[arg-type]

    @delete("/{token_id:int}", status_code=HTTP_204_NO_CONTENT, summary="Revoke an API token")
    async def revoke(self, context: TheContext, actor: TheActor, token_id: FromPath[int]) -> None:
        """It stops working at once; owners may revoke anybody's."""
        await service.revoke_token(context, actor, token_id)
