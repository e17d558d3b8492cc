"""`/api/v1/admins`, and `/api/v1/invites` for those who are not admins yet."""

from datetime import datetime
from typing import Any

import msgspec
from litestar import Controller, Request, delete, get, patch, post
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED, HTTP_204_NO_CONTENT

from xfleet_controller.admins import service
from xfleet_controller.admins.service import AdminEdit, AdminNew, AdminView, Invite
from xfleet_controller.edge import TheActor, TheContext, client_address, public_base, refuse_cross_site
from xfleet_controller.tokens.api import ApiTokenOut, token_fields
from xfleet_controller.tokens.service import list_tokens


class AdminOut(msgspec.Struct, kw_only=True):
    """Somebody who signs in."""

    id: int
    name: str
    role: str
    enabled: bool
    totp: bool
    """Whether a second factor is on."""
    invited: bool
    """Whether a link to choose a password waits to be used."""
    sessions_count: int
    tokens_count: int
    created_at: datetime
    last_login_at: datetime | None


class AdminCreated(AdminOut, kw_only=True):
    """A new admin; the link is shown only here, and there is none when a password was given."""

    invite_url: str | None
    invite_expires_at: datetime | None


class PasswordReset(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Another password; without one a link is made."""

    password: str = ""


class InviteOut(msgspec.Struct, kw_only=True):
    """A one-time link to choose a password; null when a password was given."""

    invite_url: str | None
    invite_expires_at: datetime | None


class Acceptance(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The last part of a link, and the password chosen."""

    token: str
    password: str


class Accepted(msgspec.Struct, kw_only=True):
    """Under which name to sign in now."""

    username: str


def admin_fields(view: AdminView) -> dict[str, Any]:
    """The fields of `AdminOut`."""
    names = ("id", "name", "role", "enabled", "created_at", "last_login_at")
    return {name: getattr(view.row, name) for name in names} | {
        "totp": view.has_second_factor,
        "invited": view.row.invite_sha256 is not None,
        "sessions_count": view.counts.sessions,
        "tokens_count": view.counts.tokens,
    }


def invite_url(base: str, invite: Invite) -> str | None:
    """The link by which an admin chooses a password."""
    return f"{base}/invite/{invite.token}" if invite.token else None


class AdminApi(Controller):
    """Who may sign in."""

    path = "/admins"
    tags = ["admins"]

    @get(summary="List admins")
    async def list_admins(self, context: TheContext, actor: TheActor) -> list[AdminOut]:
        """By name."""
        return [AdminOut(**admin_fields(view)) for view in await service.list_admins(context, actor)]

    @post(status_code=HTTP_201_CREATED, summary="Add an admin")
    async def create(
        self, request: Request[Any, Any, Any], context: TheContext, actor: TheActor, data: JSONBody[AdminNew]
    ) -> AdminCreated:
        """With a password, or with a one-time link by which the admin chooses one."""
        view, invite = await service.create_admin(context, actor, data)
        url = invite_url(public_base(request, context), invite)
        return AdminCreated(**admin_fields(view), invite_url=url, invite_expires_at=invite.expires_at)

    @get("/{admin_id:int}", summary="Show an admin")
    async def show(self, context: TheContext, actor: TheActor, admin_id: FromPath[int]) -> AdminOut:
        """One admin."""
        return AdminOut(**admin_fields(await service.get_admin(context, actor, admin_id)))

    @patch("/{admin_id:int}", summary="Change an admin")
    async def edit(
        self, context: TheContext, actor: TheActor, admin_id: FromPath[int], data: JSONBody[AdminEdit]
    ) -> AdminOut:
        """Role, and whether the admin may sign in; a change ends its sessions and API tokens."""
        return AdminOut(**admin_fields(await service.edit_admin(context, actor, admin_id, data)))

    @delete("/{admin_id:int}", status_code=HTTP_204_NO_CONTENT, summary="Delete an admin")
    async def remove(self, context: TheContext, actor: TheActor, admin_id: FromPath[int]) -> None:
        """With its sessions and API tokens; never the last owner."""
        await service.delete_admin(context, actor, admin_id)

    @post("/{admin_id:int}/password", status_code=HTTP_200_OK, summary="Reset an admin's password")
    async def reset_password(
        self,
        request: Request[Any, Any, Any],
        context: TheContext,
        actor: TheActor,
        admin_id: FromPath[int],
        data: JSONBody[PasswordReset],
    ) -> InviteOut:
        """Another admin's; the old one stops working at once."""
        invite = await service.reset_password(context, actor, admin_id, data.password)
        url = invite_url(public_base(request, context), invite)
        return InviteOut(invite_url=url, invite_expires_at=invite.expires_at)

    @delete("/{admin_id:int}/totp", status_code=HTTP_204_NO_CONTENT, summary="Remove an admin's second factor")
    async def remove_totp(self, context: TheContext, actor: TheActor, admin_id: FromPath[int]) -> None:
        """For another admin who lost the phone."""
        await service.remove_totp(context, actor, admin_id)

    @get("/{admin_id:int}/tokens", summary="List an admin's API tokens")
    async def list_tokens(self, context: TheContext, actor: TheActor, admin_id: FromPath[int]) -> list[ApiTokenOut]:
        """Newest first."""
        rows = await list_tokens(context, actor, admin_id)
        return [ApiTokenOut(**token_fields(row)) for row in rows]  # type: ignore[arg-type]


class InviteApi(Controller):
    """For who was sent a link."""

    path = "/invites"
    tags = ["admins"]

    @post(status_code=HTTP_200_OK, summary="Choose a password by a link", open_to_all=True)
    async def accept(
        self, request: Request[Any, Any, Any], context: TheContext, data: JSONBody[Acceptance]
    ) -> Accepted:
        """The link works once."""
        refuse_cross_site(request)
        address = client_address(request)
        return Accepted(username=await service.accept_invite(context, data.token, data.password, address=address))
