"""Certificates of a fleet: P-256, short chains, every purpose spelled out.

Root CA (may go offline) -> intermediate -> leaves of agents, services and brokers. Routes between brokers trust a CA of
their own, so that no leaf of the first tree can join a cluster as a broker.
"""

import hashlib
import ipaddress
from datetime import UTC, datetime, timedelta
from enum import Enum

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from xfleet_runtime.keys.nkeys import BadKeyError

BACKDATE = timedelta(days=1)
"""Certificates start this long ago: a server whose clock is behind must still be able to connect."""


class Purpose(Enum):
    """What a leaf may be used for."""

    CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
    SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)
    ROUTE = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


class Authority(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate authority with its private key."""

    certificate_pem: str
    key_pem: str

    def __repr__(self) -> str:
        return "Authority(…)"


class Leaf(msgspec.Struct, frozen=True, kw_only=True):
    """A leaf with its private key; `chain_pem` starts with the leaf and ends below the root."""

    chain_pem: str
    key_pem: str

    def __repr__(self) -> str:
        return "Leaf(…)"


def generate_key_pem() -> str:
    """A new P-256 private key, PKCS#8 PEM."""
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def request_pem(key_pem: str) -> str:
    """A certificate request that proves possession of the key and asks for nothing else."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return request.sign(load_key(key_pem), hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def load_key(key_pem: str) -> ec.EllipticCurvePrivateKey:
    """The P-256 private key of a PEM text; `BadKeyError` for anything else."""
    try:
        key = serialization.load_pem_private_key(key_pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as cause:
        raise BadKeyError("not a private key in PEM") from cause
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadKeyError("not a P-256 private key")
    return key


def public_key_of(request_or_key_pem: str) -> ec.EllipticCurvePublicKey:
    """The P-256 public key of a certificate request (its signature is checked) or of a bare public key, and only that.

    Names, alternative names and extensions that a request asks for are never read.
    """
    data = request_or_key_pem.encode()
    try:
        if b"REQUEST" in data:
            request = x509.load_pem_x509_csr(data)
            if not request.is_signature_valid:
                raise BadKeyError("the certificate request is not signed by the key it names")
            key = request.public_key()
        else:
            key = serialization.load_pem_public_key(data)
    except BadKeyError:
        raise
    except (ValueError, TypeError, UnsupportedAlgorithm) as cause:
        raise BadKeyError("neither a certificate request nor a public key in PEM") from cause
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadKeyError("not a P-256 public key")
    return key


def create_root(name: str, *, now: datetime, lifetime: timedelta) -> Authority:
    """A self-signed root that may sign intermediates and leaves."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(name, name, key.public_key(), now, lifetime)
    builder = _as_authority(builder, path_length=1, issuer_key=key.public_key())
    return Authority(certificate_pem=_pem(builder.sign(key, hashes.SHA256())), key_pem=_key_pem(key))


def create_intermediate(root: Authority, name: str, *, now: datetime, lifetime: timedelta) -> Authority:
    """An authority under a root that may sign leaves only."""
    key = ec.generate_private_key(ec.SECP256R1())
    root_key = load_key(root.key_pem)
    builder = _builder(name, common_name(root.certificate_pem), key.public_key(), now, lifetime)
    builder = _as_authority(builder, path_length=0, issuer_key=root_key.public_key())
    return Authority(certificate_pem=_pem(builder.sign(root_key, hashes.SHA256())), key_pem=_key_pem(key))


def issue(
    authority: Authority,
    public_key: ec.EllipticCurvePublicKey,
    name: str,
    purpose: Purpose,
    *,
    now: datetime,
    lifetime: timedelta,
    dns_names: tuple[str, ...] = (),
    addresses: tuple[str, ...] = (),
) -> str:
    """A leaf's PEM followed by its issuer's: common name `name`, that purpose alone, only these names and addresses."""
    issuer_key = load_key(authority.key_pem)
    builder = _builder(name, common_name(authority.certificate_pem), public_key, now, lifetime)
    builder = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(list(purpose.value)), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    names = [
        *(x509.DNSName(dns_name) for dns_name in dns_names),
        *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses),
    ]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _pem(builder.sign(issuer_key, hashes.SHA256())) + authority.certificate_pem


def issue_leaf(
    authority: Authority,
    name: str,
    purpose: Purpose,
    *,
    now: datetime,
    lifetime: timedelta,
    dns_names: tuple[str, ...] = (),
    addresses: tuple[str, ...] = (),
) -> Leaf:
    """A leaf together with a new private key."""
    key_pem = generate_key_pem()
    public = load_key(key_pem).public_key()
    chain = issue(
        authority, public, name, purpose, now=now, lifetime=lifetime, dns_names=dns_names, addresses=addresses
    )
    return Leaf(chain_pem=chain, key_pem=key_pem)


def common_name(certificate_pem: str) -> str:
    """The common name of the first certificate in a PEM text."""
    return str(_certificate(certificate_pem).subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def expires_at(certificate_pem: str) -> datetime:
    """When the first certificate in a PEM text stops being valid, aware UTC."""
    return _certificate(certificate_pem).not_valid_after_utc.astimezone(UTC)


def lifetime(certificate_pem: str) -> timedelta:
    """For how long the first certificate in a PEM text was issued."""
    certificate = _certificate(certificate_pem)
    return certificate.not_valid_after_utc - certificate.not_valid_before_utc


def pin(certificate_pem: str) -> str:
    """SHA-256 of the public key of the first certificate, hex, as nats-server's `pinned_certs` wants it."""
    spki = (
        _certificate(certificate_pem)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return hashlib.sha256(spki).hexdigest()


def fingerprint(certificate_pem: str) -> str:
    """SHA-256 of the first certificate, hex, as browsers show it."""
    return _certificate(certificate_pem).fingerprint(hashes.SHA256()).hex()


def _certificate(certificate_pem: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(certificate_pem.encode())
    except ValueError as cause:
        raise BadKeyError("not a certificate in PEM") from cause


def _builder(
    subject: str, issuer: str, public_key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _as_authority(
    builder: x509.CertificateBuilder, *, path_length: int, issuer_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(digital_signature=False), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _usage(*, digital_signature: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=not digital_signature,
        crl_sign=not digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain).decode()
