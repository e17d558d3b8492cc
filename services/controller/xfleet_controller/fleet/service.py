"""Identities: enrollment tokens, enrollment, renewal, revocation."""

import asyncio
import base64
import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.enrollment import EnrollAnswer, EnrollmentToken, EnrollRequest, SignedManifest
from xfleet_contracts.errors import Refusal
from xfleet_controller.audit.store import note
from xfleet_controller.auth.rights import SYSTEM, Actor, authorize
from xfleet_controller.context import Context
from xfleet_controller.db import Database
from xfleet_controller.errors import BusUnavailable, NotFound
from xfleet_controller.fleet import models, store
from xfleet_controller.fleet.models import Certificate, Revocation
from xfleet_controller.fleet.returns import Returns
from xfleet_controller.outbox import note_event
from xfleet_controller.servers.models import Server
from xfleet_controller.servers.replacing import note_enrolled
from xfleet_controller.texts import cleaned
from xfleet_controller.vault import Vault
from xfleet_nats.fleet import AGENT_LIFETIME, FleetIssuer
from xfleet_nats.system import Push, push_account
from xfleet_runtime.broker import BrokerLink, BrokerOutage
from xfleet_runtime.clock import Clock
from xfleet_runtime.keys import x509
from xfleet_runtime.keys.nkeys import BadKeyError
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
TOKEN_LIFETIME = timedelta(minutes=15)
RENEWALS_WITHIN = timedelta(days=1)
RENEWALS_COUNT = 20
ACCOUNT_SETTING = "account_serial"
MAX_REASON = 200
REVOKED_TEXT = "Its credentials were revoked:"
SUSPENDED = "suspended"
"""Reason of a revocation that the watch on connections decided, and that an operator can lift."""


class TokenRefused(Refusal):
    """An enrollment token that makes nobody a server; whoever asks has proved to the broker that it was his."""

    code = "token_refused"
    status = 403
    message = "This enrollment token is not valid."


class TokenUnknown(TokenRefused):
    """A token that this fleet never made, or has long forgotten, or whose server was deleted."""

    code = "token_unknown"
    message = "This enrollment token is not known (any more)."


class TokenExpired(TokenRefused):
    """A token that nobody used in time."""

    code = "token_expired"
    message = "This enrollment token has expired."


class TokenUsed(TokenRefused):
    """A token that another key has used: the line was pasted on two machines, or somebody read it."""

    code = "token_used"
    message = "This enrollment token was used by another machine already; the panel has raised an alarm."


class EnrollingTooOften(Refusal):
    """More tries than a machine needs."""

    code = "rate_limited"
    status = 429
    message = "Too many tries with this enrollment token. Wait a minute, then try again."


class NothingEnrolled(Refusal):
    """A call from a server that no longer exists."""

    code = "server_unknown"
    status = 404
    message = "This server is not part of the fleet (any more)."


class KeyRefused(Refusal):
    """A certificate request that cannot be read."""

    code = "key_unusable"
    status = 422
    message = "The certificate request cannot be used."


class RenewedTooOften(Refusal):
    """More renewals than any agent needs: each one is kept for a year, for its revocation."""

    code = "renewed_too_often"
    status = 429
    message = "This server renewed its identity too often lately. Try again tomorrow."


class Fleet:
    """Keys in use, the manifest, and the lock around account tokens."""

    def __init__(
        self, issuer: FleetIssuer, manifest: SignedManifest, broker_urls: tuple[str, ...], vault: Vault, clock: Clock
    ) -> None:
        self.issuer = issuer
        self.manifest = manifest
        self.broker_urls = broker_urls
        self.vault = vault
        self.clock = clock
        self.renewals_count = RENEWALS_COUNT
        """Renewals of one server that are granted within `RENEWALS_WITHIN`."""
        self.returns = Returns()
        """What is remembered of requests over HTTPS."""
        self._pushing = asyncio.Lock()

    async def push_revocations(self, database: Database, link: BrokerLink) -> Push:
        """Builds the account token from the table and hands it to every node. Raises `BrokerOutage`."""
        async with self._pushing:
            now = self.clock.now()
            async with database.write() as session:
                revoked = await store.list_revocations(session, now)
                serial = int(await store.find_setting(session, ACCOUNT_SETTING) or 0) + 1
                await store.set_setting(session, ACCOUNT_SETTING, serial, now)
            push = await push_account(link, self.issuer, revoked, serial=serial, clock=self.clock)
            if push.state.serial > serial:
                async with database.write() as session:
                    await store.set_setting(session, ACCOUNT_SETTING, push.state.serial, now)
            _log.info("account token pushed", nodes=push.nodes, revoked=len(revoked), refused=push.refused)
            return push


async def make_token(
    session: AsyncSession,
    fleet: Fleet,
    actor: Actor,
    server: Server,
    *,
    lifetime: timedelta = TOKEN_LIFETIME,
    broker_urls: tuple[str, ...] = (),
    replaces: bool = False,
    replaces_address: str = "",
) -> str:
    """The token that enrolls an agent as this server, once; without addresses it names all that we know.

    With `replaces` what points at the old machine follows the new one, to `replaces_address` where that is known.
    """
    authorize(actor, "servers.write", server)
    now, token_id = fleet.clock.now(), secrets.token_hex(8)
    credentials = fleet.issuer.bus_credentials(
        "enroll", token_id, broker_urls or fleet.broker_urls, expires_at=now + lifetime
    )
    token = EnrollmentToken(
        token_id=token_id,
        broker_urls=credentials.urls,
        tls_name=credentials.tls_name,
        ca_pem=credentials.ca_pem,
        root_public_key=fleet.issuer.keys.root_public,
        jwt=credentials.jwt,
        seed=credentials.seed,
        cert_pem=credentials.cert_pem,
        key_pem=credentials.key_pem,
    )
    session.add(
        models.EnrollmentToken(
            token_id=token_id,
            server_id=server.id,
            created_at=now,
            expires_at=now + lifetime,
            replaces=replaces,
            replaces_address=replaces_address,
        )
    )
    note(session, actor, "make_enrollment_token", "server", str(server.id), now, name=server.name)
    return base64.urlsafe_b64encode(msgspec.json.encode(token)).decode().rstrip("=")


async def enroll(database: Database, fleet: Fleet, token_id: str, request: EnrollRequest) -> tuple[EnrollAnswer, bool]:
    """The identity for a token, and whether older identities of the server were revoked by it.

    The same token with the same keys gets the same answer; with other keys it raises `TokenUsed` and alarms. Raises
    `TokenUnknown` or `TokenExpired` for tokens that nobody can use.
    """
    key_sha256, now = _fingerprint(request), fleet.clock.now()
    async with database.write() as session:
        if await store.has_other_server_key(session, token_id, request.nkey):
            raise KeyRefused("This key belongs to another server.", field="nkey")
        if await store.claim_token(session, token_id, request.nkey, key_sha256, now):
            row = await session.get_one(models.EnrollmentToken, token_id, populate_existing=True)
            server = await session.get_one(Server, row.server_id)
            if server.retiring_at is not None:
                raise TokenRefused
            revoked = await revoke_identities(session, server, "enrolled anew", now)
            if server.last_error.startswith(REVOKED_TEXT):
                server.last_error = ""
            await note_enrolled(session, server, row, request.hostname, now)
            answer = issue(session, fleet, server, request, now)
            row.answer_sealed = fleet.vault.seal(f"enroll:{token_id}", msgspec.json.encode(answer))
            note(session, SYSTEM, "enroll", "server", str(server.id), now, name=server.name, after=request)
            note_event(session, "server_enrolled", now, server=server.slug, subject=server.name)
            return answer, bool(revoked)
        row = await session.get(models.EnrollmentToken, token_id)
        if row is None:
            raise TokenUnknown
        if row.used_at is None:
            raise TokenExpired
        same = row.used_nkey == request.nkey and row.used_key_sha256 == key_sha256
        if same and row.answer_sealed is not None:
            return fleet.vault.open_value(f"enroll:{token_id}", row.answer_sealed, EnrollAnswer), False
        server = await session.get_one(Server, row.server_id)
        note(session, SYSTEM, "enroll_refused", "server", str(server.id), now, name=server.name, after=request)
        note_event(session, "enrollment_alarm", now, server=server.slug, details={"hostname": request.hostname})
    raise TokenUsed


async def renew(database: Database, fleet: Fleet, sid: str, request: EnrollRequest) -> EnrollAnswer:
    """A further identity for a server that is known; the one it has stays good until it expires."""
    _fingerprint(request)
    now = fleet.clock.now()
    async with database.write() as session:
        server = await session.scalar(select(Server).where(Server.slug == sid))
        if server is None:
            raise NothingEnrolled
        live = await store.list_live_certificates(session, server.id, now)
        if all(each.nkey != request.nkey for each in live):
            raise KeyRefused("Only a key that this server already has can be renewed.", field="nkey")
        check_renewals(fleet, live, now)
        answer = issue(session, fleet, server, request, now, "renew")
        note(session, SYSTEM, "renew_identity", "server", str(server.id), now, name=server.name)
        return answer


async def revoke_identities(session: AsyncSession, server: Server, reason: str, now: datetime) -> Sequence[Certificate]:
    """Revokes every key the server ever had, also one that expired: it must not come back over HTTPS either.

    Push the account token after the commit. Gives what was good until now.
    """
    rows = await store.list_certificates(session, server.id)
    good = [row for row in rows if row.revoked_at is None]
    for certificate in good:
        certificate.revoked_at = now
    for nkey in {row.nkey for row in rows}:
        known = await session.get(Revocation, nkey)
        if known is None:
            dies_at = now + AGENT_LIFETIME
            session.add(Revocation(nkey=nkey, server_id=server.id, reason=reason, revoked_at=now, expires_at=dies_at))
        elif any(each.nkey == nkey for each in good) or known.reason == SUSPENDED:
            known.reason, known.revoked_at, known.expires_at = reason, now, now + AGENT_LIFETIME
    await session.flush()
    return good


class Revoked(NamedTuple):
    """What a revocation did."""

    server: Server
    certificates_count: int
    pushed: bool
    """Whether the broker knows already; otherwise it learns as soon as it is back."""


async def revoke_server(context: Context, actor: Actor, server_id: int, reason: str = "") -> Revoked:
    """Takes every key of a server back: its live connection is cut at once and it is refused until enrolled anew.

    Xray on the machine goes on by itself. Raises `NotFound`.
    """
    authorize(actor, "fleet.revoke")
    reason = cleaned(reason.strip(), MAX_REASON) or "revoked"
    return await revoke_as(context, actor, server_id, reason, "server_revoked")


async def revoke_as(context: Context, actor: Actor, server_id: int, reason: str, event: str) -> Revoked:
    """Revokes for this reason, under this name in events."""
    if context.fleet is None:
        raise BusUnavailable
    now = context.clock.now()
    async with context.database.write() as session:
        server = await session.get(Server, server_id)
        if server is None:
            raise NotFound("There is no such server.")
        revoked = await revoke_identities(session, server, reason, now)
        await store.void_tokens(session, server.id, now)
        server.last_error, server.credentials_expire_at = f"{REVOKED_TEXT} {reason}", None
        details = {"reason": reason, "certificates": len(revoked)}
        note(session, actor, "revoke_server", "server", str(server.id), now, name=server.name, after=details)
        note_event(session, event, now, server=server.slug, subject=server.name, details=details)
    pushed = await push_revocations(context)
    context.presence.now_gone(server.slug)
    return Revoked(server, len(revoked), pushed)


async def push_revocations(context: Context) -> bool:
    """Hands the revocations to the broker now; when that fails (False) it happens at the next connect."""
    if context.fleet is None or context.bus is None:
        return False
    try:
        push = await context.fleet.push_revocations(context.database, context.bus.sys)
    except BrokerOutage as outage:
        _log.warning("revocations wait until the broker is back", reason=str(outage))
        return False
    return bool(push.nodes) and not push.refused


def check_renewals(fleet: Fleet, rows: Sequence[Certificate], now: datetime) -> None:
    """Raises `RenewedTooOften` when a server that has these identities got more than enough lately."""
    if sum(each.issued_at > now - RENEWALS_WITHIN for each in rows) >= fleet.renewals_count:
        raise RenewedTooOften


def issue(
    session: AsyncSession, fleet: Fleet, server: Server, request: EnrollRequest, now: datetime, source: str = "enroll"
) -> EnrollAnswer:
    """Certificate and JWT for that key, written down; `source` is enroll, renew or https."""
    jwt, cert_pem = fleet.issuer.issue_agent(server.slug, request.nkey, request.csr_pem)
    session.add(
        Certificate(
            server_id=server.id,
            common_name=server.slug,
            serial_number=x509.fingerprint(cert_pem)[:64],
            nkey=request.nkey,
            pem_certificate=cert_pem,
            source=source,
            issued_at=now,
            expires_at=x509.expires_at(cert_pem),
        )
    )
    return EnrollAnswer(sid=server.slug, jwt=jwt, cert_pem=cert_pem, manifest=fleet.manifest)


def _fingerprint(request: EnrollRequest) -> str:
    try:
        x509.public_key_of(request.csr_pem)
    except BadKeyError as error:
        raise KeyRefused(f"The certificate request cannot be used: {error}.", field="csr_pem") from error
    return hashlib.sha256(f"{request.nkey}\0{request.csr_pem}".encode()).hexdigest()
