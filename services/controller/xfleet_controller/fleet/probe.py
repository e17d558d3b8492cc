"""Two identities for nobody, one of them revoked: with them `xfleet certs check` tries the live broker."""

import secrets
from datetime import timedelta

from xfleet_contracts.control import CertificateProbe, ProbeIdentity
from xfleet_controller.audit.store import note
from xfleet_controller.auth.rights import Actor, authorize
from xfleet_controller.context import Context
from xfleet_controller.errors import BusUnavailable
from xfleet_controller.fleet import service
from xfleet_controller.fleet.models import Revocation
from xfleet_runtime.broker import Credentials
from xfleet_runtime.keys.nkeys import KeyPair

LIFETIME = timedelta(minutes=5)
MARGIN = timedelta(minutes=5)
REASON = "certs check"


async def make_probe(context: Context, actor: Actor) -> CertificateProbe:
    """Both have the role that may do least, and end within minutes. Raises `BusUnavailable`."""
    authorize(actor, "fleet.certs")
    if context.fleet is None:
        raise BusUnavailable
    now, name = context.clock.now(), f"probe-{secrets.token_hex(6)}"
    good, revoked = (
        context.fleet.issuer.bus_credentials("enroll", f"{name}-{which}", (), expires_at=now + LIFETIME)
        for which in ("good", "revoked")
    )
    async with context.database.write() as session:
        nkey = KeyPair.from_seed(revoked.seed).public
        session.add(Revocation(nkey=nkey, reason=REASON, revoked_at=now, expires_at=now + LIFETIME + MARGIN))
        note(session, actor, "certs_check", "fleet", "", now)
    if not await service.push_revocations(context):
        raise BusUnavailable("The broker did not take the revocation.")
    return CertificateProbe(good=_identity(good), revoked=_identity(revoked))


def _identity(credentials: Credentials) -> ProbeIdentity:
    return ProbeIdentity(
        jwt=credentials.jwt,
        seed=credentials.seed,
        cert_pem=credentials.cert_pem,
        key_pem=credentials.key_pem,
        inbox_prefix=credentials.inbox_prefix,
    )
