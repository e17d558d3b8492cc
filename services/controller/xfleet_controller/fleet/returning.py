"""The way back over HTTPS, for an agent whose credentials expired while nobody could renew them.

The request proves itself: it is signed by the nkey that the server was enrolled with. The answer is signed with the
controller's command key over the request and its nonce, and carries the manifest that names that key; so neither side
has to believe the panel's TLS certificate, and what passes by in between is of use to nobody without the agent's keys.
"""

import base64
import binascii

from xfleet_contracts import codec
from xfleet_contracts.commands import CLOCK
from xfleet_contracts.enrollment import RENEW_CONTEXT, RENEW_PATH, EnrollAnswer, HttpsRenewal
from xfleet_contracts.errors import Refusal
from xfleet_controller.audit.store import note
from xfleet_controller.auth.rights import SYSTEM
from xfleet_controller.context import Context
from xfleet_controller.fleet import service, store
from xfleet_controller.fleet.returns import STALE_AFTER
from xfleet_controller.outbox import note_event
from xfleet_controller.servers import store as servers
from xfleet_runtime.keys import nkeys
from xfleet_runtime.keys.nkeys import BadKeyError
from xfleet_runtime.keys.signing import Asked, sign_answer

MAX_BODY_BYTES = 32 * 1024
MAX_NONCE = 200


class RenewalUnsigned(Refusal):
    """A request that its own nkey did not sign."""

    code = "signature_wrong"
    status = 401
    message = "The request is not signed by the key it is for."


class RenewalStale(Refusal):
    """A request whose time is not now; `now_ms` is the right one."""

    code = CLOCK
    status = 409
    message = "The request is too old or from the future. Sign it again with the right time."


class CredentialsRevoked(Refusal):
    """A server whose keys were taken back: only a new enrollment brings it in again."""

    code = "revoked"
    status = 403
    message = "The credentials of this server were revoked. Enroll it anew."


async def renew_over_https(context: Context, body: bytes, signature: str) -> EnrollAnswer:
    """New credentials for a server's own key, expired or not. Raises a `Refusal`.

    A stranger learns nothing of which servers there are: the signature is checked before anything is looked up.
    """
    if context.fleet is None:
        raise service.NothingEnrolled
    asked = codec.decode(body, HttpsRenewal)
    if not _is_signed(asked.request.nkey, body, signature) or not 0 < len(asked.nonce) <= MAX_NONCE:
        raise RenewalUnsigned
    now, fleet = context.clock.now(), context.fleet
    fleet.returns.look_up(context.clock.monotonic_s())
    async with context.database.write() as session:
        server = await servers.find_by_slug(session, asked.sid)
        rows = [] if server is None else await store.list_certificates(session, server.id)
        mine = [row for row in rows if row.nkey == asked.request.nkey]
        if server is None or not mine:
            raise service.NothingEnrolled
        if all(row.revoked_at is not None for row in mine):
            raise CredentialsRevoked
        now_ms = context.clock.now_ms()
        if abs(now_ms - asked.issued_at_ms) > STALE_AFTER.total_seconds() * 1000:
            raise RenewalStale(now_ms=now_ms)
        fleet.returns.once(asked.request.nkey, asked.nonce, context.clock.monotonic_s())
        service.check_renewals(fleet, rows, now)
        answer = service.issue(session, fleet, server, asked.request, now, "https")
        note(session, SYSTEM, "renew_identity_https", "server", str(server.id), now, name=server.name)
        note_event(session, "server_returned", now, server=server.slug, subject=server.name)
        return answer


def sign_return(context: Context, body: bytes, payload: bytes) -> str:
    """The header that binds this answer to that request; empty when there is no request to bind it to."""
    if context.fleet is None:
        return ""
    try:
        nonce = codec.decode(body, HttpsRenewal).nonce
    except Refusal:
        return ""
    asked = Asked(reply=nonce, subject=RENEW_PATH, question=body)
    return sign_answer(context.fleet.issuer.keys.command_key(), asked, payload)


def _is_signed(nkey: str, body: bytes, signature: str) -> bool:
    try:
        raw = base64.b64decode(signature + "=" * (-len(signature) % 4), altchars=b"-_", validate=True)
        nkeys.require_public(nkey, nkeys.Kind.USER)
        return nkeys.verify(nkey, RENEW_CONTEXT + body, raw)
    except (BadKeyError, binascii.Error, ValueError):
        return False
