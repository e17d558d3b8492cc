"""`/api/v1/servers/{id}/…`: identities of a server and taking them back; `/agent/v1/renew`: the way back of agents."""

from datetime import datetime
from typing import Any

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.enums import MediaType
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK, HTTP_204_NO_CONTENT

from xfleet_contracts import codec
from xfleet_contracts.commands import SIGNATURE_HEADER, Reply
from xfleet_contracts.enrollment import RENEW_HEADER, RENEW_PATH
from xfleet_contracts.errors import MessageTooLarge, Refusal
from xfleet_controller.edge import TheActor, TheContext, client_address
from xfleet_controller.fleet import certificates, service, watch
from xfleet_controller.fleet.returning import MAX_BODY_BYTES, renew_over_https, sign_return


class CertificateOut(msgspec.Struct, kw_only=True):
    """An identity a server has or had: certificate and bus token of one key."""

    id: int
    nkey: str
    serial_number: str
    source: str
    """enroll, renew or https."""
    status: str
    """good, expired or revoked."""
    reason: str
    """Why it was revoked."""
    issued_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


class RevokeIn(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Why."""

    reason: str = ""


class RevokedOut(msgspec.Struct, kw_only=True):
    """What was taken back."""

    server: str
    certificates_count: int
    pushed: bool
    """Whether the broker knows already; otherwise it learns as soon as it is reached."""


class CertificateApi(Controller):
    """Identities of servers."""

    path = "/servers"
    tags = ["servers"]

    @get("/{server_id:int}/identities", summary="List a server's identities")
    async def list_identities(
        self, context: TheContext, actor: TheActor, server_id: FromPath[int]
    ) -> list[CertificateOut]:
        """Newest first, with those that expired or were revoked."""
        rows = await certificates.list_identities(context, actor, server_id)
        return [CertificateOut(**row._asdict()) for row in rows]

    @post("/{server_id:int}/revoke", status_code=HTTP_200_OK, summary="Revoke a server's credentials")
    async def revoke(
        self, context: TheContext, actor: TheActor, server_id: FromPath[int], data: JSONBody[RevokeIn]
    ) -> RevokedOut:
        """Cuts its live connection at once; a new enrollment brings the server back. Its Xray goes on by itself."""
        done = await service.revoke_server(context, actor, server_id, data.reason)
        return RevokedOut(server=done.server.slug, certificates_count=done.certificates_count, pushed=done.pushed)

    @post("/{server_id:int}/lift-suspension", status_code=HTTP_204_NO_CONTENT, summary="Let a suspended server back")
    async def lift(self, context: TheContext, actor: TheActor, server_id: FromPath[int]) -> None:
        """For a server that the watch on connections suspended; its agent returns by itself within minutes."""
        await watch.lift_suspension(context, actor, server_id)


class AgentDoor(Controller):
    """Without signing in: agents prove themselves by their own keys."""

    path = "/"
    include_in_schema = False

    @post(RENEW_PATH, status_code=HTTP_200_OK, request_max_body_size=MAX_BODY_BYTES)
    async def renew(self, request: Request[Any, Any, Any], context: TheContext) -> Response[bytes]:
        """New credentials, or a reason; signed in either case, if there is a nonce to bind it to."""
        body, status = b"", HTTP_200_OK
        try:
            if context.fleet is None:
                raise service.NothingEnrolled
            context.fleet.returns.let_in(client_address(request), context.clock.monotonic_s())
            body = await request.body()
            if len(body) > MAX_BODY_BYTES:
                raise MessageTooLarge(limit_bytes=MAX_BODY_BYTES)
            answer = await renew_over_https(context, body, request.headers.get(RENEW_HEADER, ""))
            payload = codec.encode(Reply(ok=True, data=msgspec.Raw(codec.canonical(answer))))
        except Refusal as refusal:
            status, payload = refusal.status, codec.encode(Reply(ok=False, error=refusal.body()))
        headers = {SIGNATURE_HEADER: sign_return(context, body, payload), "cache-control": "no-store"}
        return Response(payload, status_code=status, media_type=MediaType.JSON, headers=headers)
