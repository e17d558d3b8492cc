"""What one identity needs to get onto the bus."""

import base64
import os
import ssl

import msgspec

from xfleet_contracts.message import Secret
from xfleet_runtime.errors import Unusable
from xfleet_runtime.keys import jwt
from xfleet_runtime.keys.nkeys import BadKeyError, KeyPair, Kind


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """Where the broker is, how to recognise it, and who we are to it: certificate, JWT and the nkey behind it."""

    urls: tuple[str, ...]
    """`tls://host:port` or `wss://host:port/path`, in any mixture; all are tried."""
    ca_pem: str
    """Roots that may have issued the broker's certificate."""
    cert_pem: str
    """Our certificate, followed by its intermediate."""
    key_pem: Secret
    jwt: Secret
    seed: Secret
    """Seed of the user nkey the JWT is for."""
    tls_name: str
    """The name in the broker's certificate, whatever its address is."""
    inbox_prefix: str

    def __repr__(self) -> str:
        return f"Credentials({self.inbox_prefix} at {', '.join(self.urls)})"

    @property
    def expires_at(self) -> int:
        """Unix seconds at which the broker will cut the connection; 0 never."""
        return jwt.decode(self.jwt).exp

    @property
    def issued_at(self) -> int:
        """Unix seconds at which they were issued."""
        return jwt.decode(self.jwt).iat

    def check(self) -> None:
        """Raises `Unusable` when key, certificate or JWT are broken or do not belong together."""
        try:
            pair = KeyPair.from_seed(self.seed)
            claims = jwt.decode(self.jwt)
            tls_context(self)
        except (BadKeyError, jwt.BadJwtError, ssl.SSLError, ValueError) as error:
            raise Unusable(f"The bus credentials are broken: {error}. Have them issued again.") from error
        if pair.kind is not Kind.USER or claims.sub != pair.public:
            raise Unusable("The bus credentials are broken: seed and JWT are not of one key. Have them issued again.")


class NonceSigner:
    """Answers the broker's challenge with the nkey, in the forms nats-py wants."""

    def __init__(self, credentials: Credentials) -> None:
        self._pair = KeyPair.from_seed(credentials.seed)
        self._jwt = credentials.jwt

    def user_jwt(self) -> bytes:
        """The JWT as bytes."""
        return self._jwt.encode()

    def sign(self, nonce: str) -> bytes:
        """The signature over the broker's nonce, base64."""
        return base64.b64encode(self._pair.sign(nonce.encode()))


def tls_context(credentials: Credentials) -> ssl.SSLContext:
    """A TLS 1.3 context with our certificate, made without a file: the key passes through anonymous memory only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=credentials.ca_pem)
    descriptor = os.memfd_create("xfleet", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, f"{credentials.cert_pem}\n{credentials.key_pem}".encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context
