"""The keys of one fleet, and everything that is issued with them.

`FleetRoot` is what may lie in a safe: the key that signs manifests, the root certificate authority, the operator's
identity. `FleetKeys` is what a running controller needs, kept sealed under the key file.
"""

from datetime import UTC, datetime, timedelta

import msgspec

from xfleet_contracts.errors import Refusal
from xfleet_contracts.message import Secret, SecretBytes
from xfleet_nats.accounts import LONGEST_LIFETIME, AccountState, scopes_of
from xfleet_nats.roles import FLEET, NAME, ROLES, SYSTEM, Role
from xfleet_runtime.broker.credentials import Credentials
from xfleet_runtime.clock import Clock, SystemClock
from xfleet_runtime.keys import jwt, x509
from xfleet_runtime.keys.nkeys import BadKeyError, KeyPair, Kind, require_public
from xfleet_runtime.keys.signing import SigningKey
from xfleet_runtime.keys.x509 import Authority, Leaf, Purpose

AGENT_LIFETIME = timedelta(days=365)
SERVICE_LIFETIME = timedelta(days=365)
BROKER_LIFETIME = timedelta(days=365)
_AUTHORITY_LIFETIME = timedelta(days=20 * 365)
_INTERMEDIATE_LIFETIME = timedelta(days=10 * 365)
FIRST_CONTROLLER = "controller"


class NameUnusable(Refusal):
    """A name that must not get into a JWT: the broker would paste it into subjects."""

    code = "name_unusable"
    status = 422
    message = "Names on the bus are lower-case letters, digits, - and _, at most 63, and begin with a letter or digit."


class KeyUnusable(Refusal):
    """A public key, request or certificate that cannot be certified."""

    code = "key_unusable"
    status = 422
    message = "The key cannot be certified."


class FleetRoot(msgspec.Struct, frozen=True, kw_only=True):
    """What can be taken offline: nothing that runs needs it, until a manifest, an authority or the operator changes."""

    fleet_id: str
    manifest_seed: SecretBytes
    """Ed25519 seed of the one key that agents pin; signs manifests only."""
    ca_key_pem: Secret
    ca_pem: str
    operator_seed: Secret

    @property
    def manifest_key(self) -> SigningKey:
        """The key that signs manifests."""
        return SigningKey.from_seed(self.manifest_seed)

    def __repr__(self) -> str:
        return f"FleetRoot({self.fleet_id})"


class FleetKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Every secret a running fleet needs, and the tokens that must stay byte-identical."""

    fleet_id: str
    root_public: bytes
    """Public half of the manifest key, 32 bytes: what agents pin."""
    ca_pem: str
    """The root certificate, which everybody trusts."""
    intermediate: Authority
    route_authority: Authority
    operator_jwt: str
    """Never signed again: nats-server refuses to reload another one."""
    operator_signing_seed: Secret
    fleet_account: str
    system_account: str
    system_jwt: str
    role_seeds: dict[str, Secret]
    command_seeds: dict[str, SecretBytes]
    """Ed25519 seeds of the command keys, by controller."""

    @property
    def tls_name(self) -> str:
        """The name in every broker's certificate, whatever its address."""
        return f"broker.{self.fleet_id}.xfleet"

    def command_key(self, controller: str = FIRST_CONTROLLER) -> SigningKey:
        """The key with which that controller signs commands; `KeyError` when it has none."""
        return SigningKey.from_seed(self.command_seeds[controller])

    def __repr__(self) -> str:
        return f"FleetKeys({self.fleet_id})"


def with_all_roles(keys: FleetKeys) -> FleetKeys:
    """The keys with a seed for every role there is now: what a fleet made by an older release needs.

    The account's token must be pushed afterwards. A new role in the SYS account would need the operator as well.
    """
    missing = {
        name: KeyPair.generate(Kind.ACCOUNT).seed
        for name, role in ROLES.items()
        if name not in keys.role_seeds and role.account == FLEET
    }
    return msgspec.structs.replace(keys, role_seeds={**keys.role_seeds, **missing}) if missing else keys


def with_command_key(keys: FleetKeys, controller: str) -> FleetKeys:
    """The keys with a command key for that controller; the next manifest must name it."""
    if controller in keys.command_seeds:
        return keys
    seeds = {**keys.command_seeds, controller: SigningKey.generate().seed}
    return msgspec.structs.replace(keys, command_seeds=seeds)


def create_fleet(fleet_id: str, *, clock: Clock | None = None) -> tuple[FleetRoot, FleetKeys]:
    """New keys for a new fleet; its id must be usable in a host name."""
    if not NAME.fullmatch(fleet_id) or "_" in fleet_id:
        raise NameUnusable(name=fleet_id)
    now = (clock or SystemClock()).now()
    operator, operator_signer = KeyPair.generate(Kind.OPERATOR), KeyPair.generate(Kind.OPERATOR)
    fleet, system = KeyPair.generate(Kind.ACCOUNT), KeyPair.generate(Kind.ACCOUNT)
    root_ca = x509.create_root(f"xfleet {fleet_id} root", now=now, lifetime=_AUTHORITY_LIFETIME)
    manifest_key = SigningKey.generate()
    root = FleetRoot(
        fleet_id=fleet_id,
        manifest_seed=manifest_key.seed,
        ca_key_pem=root_ca.key_pem,
        ca_pem=root_ca.certificate_pem,
        operator_seed=operator.seed,
    )
    role_seeds = {name: KeyPair.generate(Kind.ACCOUNT).seed for name in ROLES}
    issued_at = int(now.timestamp())
    keys = FleetKeys(
        fleet_id=fleet_id,
        root_public=manifest_key.public,
        ca_pem=root_ca.certificate_pem,
        intermediate=x509.create_intermediate(
            root_ca, f"xfleet {fleet_id} intermediate", now=now, lifetime=_INTERMEDIATE_LIFETIME
        ),
        route_authority=x509.create_root(f"xfleet {fleet_id} routes", now=now, lifetime=_AUTHORITY_LIFETIME),
        operator_jwt=jwt.operator_jwt(
            operator,
            name=fleet_id,
            signing_keys=(operator_signer.public,),
            system_account=system.public,
            issued_at=issued_at,
        ),
        operator_signing_seed=operator_signer.seed,
        fleet_account=fleet.public,
        system_account=system.public,
        system_jwt=jwt.account_jwt(
            operator_signer,
            account=system.public,
            name=SYSTEM,
            scopes=scopes_of(SYSTEM, role_seeds),
            revocations={},
            jetstream=False,
            serial=1,
            issued_at=issued_at,
        ),
        role_seeds=role_seeds,
        command_seeds={FIRST_CONTROLLER: SigningKey.generate().seed},
    )
    return root, keys


class FleetIssuer:
    """Issues what people, agents, services and brokers need to be part of the fleet."""

    def __init__(self, keys: FleetKeys, clock: Clock | None = None) -> None:
        self.keys = keys
        self._clock = clock or SystemClock()

    def issue_user_jwt(self, role: str, name: str, public_nkey: str, expires_at: datetime) -> str:
        """A JWT for that key as `name` in `role`, for `LONGEST_LIFETIME` at most.

        Raises `NameUnusable` or `KeyUnusable`.
        """
        known, now = _known(role, name), self._clock.now()
        try:
            require_public(public_nkey, Kind.USER)
        except BadKeyError as error:
            raise KeyUnusable(f"The nkey cannot be certified: {error}.", field="nkey") from error
        return jwt.user_jwt(
            KeyPair.from_seed(self.keys.role_seeds[role]),
            account=self.keys.system_account if known.account == SYSTEM else self.keys.fleet_account,
            name=name,
            public=public_nkey,
            issued_at=int(now.timestamp()),
            expires_at=int(min(expires_at, now + LONGEST_LIFETIME).timestamp()),
        )

    def issue_client_certificate(self, public_key_or_csr: str, name: str, expires_at: datetime) -> str:
        """A certificate for clientAuth only, without alternative names, and its intermediate; PEM.

        From a request only the public key is taken. Raises `NameUnusable` or `KeyUnusable`.
        """
        if not NAME.fullmatch(name):
            raise NameUnusable(name=name)
        try:
            public = x509.public_key_of(public_key_or_csr)
        except BadKeyError as error:
            raise KeyUnusable(f"The key cannot be certified: {error}.", field="csr_pem") from error
        now = self._clock.now()
        return x509.issue(self.keys.intermediate, public, name, Purpose.CLIENT, now=now, lifetime=expires_at - now)

    def issue_agent(self, sid: str, public_nkey: str, csr_pem: str) -> tuple[str, str]:
        """JWT and certificate of the agent of a server, good for a year."""
        expires_at = self._clock.now() + AGENT_LIFETIME
        return (
            self.issue_user_jwt("agent", sid, public_nkey, expires_at),
            self.issue_client_certificate(csr_pem, sid, expires_at),
        )

    def bus_credentials(
        self,
        role: str,
        name: str,
        urls: tuple[str, ...],
        *,
        expires_at: datetime | None = None,
    ) -> Credentials:
        """Complete credentials with new keys: for a controller, bot or command line, and for enrollment tokens.

        Of `urls` those are kept that the broker lets this role in by.
        """
        expires_at = expires_at or self._clock.now() + SERVICE_LIFETIME
        pair, key_pem = KeyPair.generate(Kind.USER), x509.generate_key_pem()
        open_to = tuple(url for url in urls if not url.startswith("wss:") or _known(role, name).by_websocket)
        return Credentials(
            urls=open_to or urls,
            ca_pem=self.keys.ca_pem,
            cert_pem=self.issue_client_certificate(x509.request_pem(key_pem), name, expires_at),
            key_pem=key_pem,
            jwt=self.issue_user_jwt(role, name, pair.public, expires_at),
            seed=pair.seed,
            tls_name=self.keys.tls_name,
            inbox_prefix=_known(role, name).inbox_prefix(name),
        )

    def issue_broker_certificate(self) -> Leaf:
        """A broker's certificate: serverAuth only, under the fleet's fixed name."""
        return x509.issue_leaf(
            self.keys.intermediate,
            self.keys.tls_name,
            Purpose.SERVER,
            now=self._clock.now(),
            lifetime=BROKER_LIFETIME,
            dns_names=(self.keys.tls_name,),
        )

    def issue_route_certificate(self, node: str, addresses: tuple[str, ...]) -> Leaf:
        """A broker node's certificate for routes to its peers, from the authority that signs nothing else.

        `addresses` are the IP addresses its peers reach it by: nats-server checks them, and knows no fixed name here.
        """
        if not NAME.fullmatch(node):
            raise NameUnusable(name=node)
        return x509.issue_leaf(
            self.keys.route_authority,
            f"{node}.{self.keys.tls_name}",
            Purpose.ROUTE,
            now=self._clock.now(),
            lifetime=_AUTHORITY_LIFETIME - timedelta(days=1),
            dns_names=(f"{node}.{self.keys.tls_name}",),
            addresses=addresses,
        )

    def account_jwt(self, state: AccountState | None = None) -> str:
        """The FLEET account's token with these revocations; without a state the one of a fleet's first start."""
        state = state or AccountState(serial=1, issued_at=jwt.decode(self.keys.operator_jwt).iat)
        return jwt.account_jwt(
            KeyPair.from_seed(self.keys.operator_signing_seed),
            account=self.keys.fleet_account,
            name=FLEET,
            scopes=scopes_of(FLEET, self.keys.role_seeds),
            revocations=state.revocations,
            jetstream=True,
            serial=state.serial,
            issued_at=state.issued_at,
        )

    def expiry(self, credentials: Credentials) -> datetime:
        """When these credentials stop working: the earlier of JWT and certificate."""
        from_jwt = datetime.fromtimestamp(credentials.expires_at or 2**33, UTC)
        return min(from_jwt, x509.expires_at(credentials.cert_pem))


def _known(role: str, name: str) -> Role:
    if not NAME.fullmatch(name):
        raise NameUnusable(name=name)
    if role not in ROLES:
        raise NameUnusable(f"There is no role {role}.", role=role)
    return ROLES[role]
