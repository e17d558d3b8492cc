"""`/api/v1/servers/{id}/…`: identities of a server and taking them back."""

from datetime import datetime

import msgspec
from litestar import Controller, get, post
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK

from xfleet_controller.edge import TheActor, TheContext
from xfleet_controller.fleet import certificates, service


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

    @get("/{server_id:int}/certificates", summary="List a server's identities")
    async def list_certificates(
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
