"""Certificates carry what the issuer decided, and nothing a request asks for."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509 as crypto
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from xfleet_runtime.keys import x509
from xfleet_runtime.keys.nkeys import BadKeyError
from xfleet_runtime.keys.x509 import Purpose

NOW = datetime(2026, 5, 1, tzinfo=UTC)
ROOT = x509.create_root("root", now=NOW, lifetime=timedelta(days=3650))
INTERMEDIATE = x509.create_intermediate(ROOT, "intermediate", now=NOW, lifetime=timedelta(days=1000))


def issued(pem: str, purpose: Purpose = Purpose.CLIENT, **more: tuple[str, ...]) -> crypto.Certificate:
    chain = x509.issue(
        INTERMEDIATE, x509.public_key_of(pem), "srv1", purpose, now=NOW, lifetime=timedelta(days=365), **more
    )
    return crypto.load_pem_x509_certificate(chain.encode())


def greedy_request(key: ec.EllipticCurvePrivateKey) -> str:
    """A request for much more than it should get."""
    wanted = crypto.Name([crypto.NameAttribute(NameOID.COMMON_NAME, "controller")])
    names = crypto.SubjectAlternativeName([crypto.DNSName("broker.test.xfleet")])
    usage = crypto.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    request = crypto.CertificateSigningRequestBuilder().subject_name(wanted)
    for extension in (names, usage, crypto.BasicConstraints(ca=True, path_length=None)):
        request = request.add_extension(extension, critical=False)
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def test_of_a_request_only_the_public_key_is_taken() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = issued(greedy_request(key))
    assert leaf.public_key() == key.public_key()
    assert [attribute.value for attribute in leaf.subject] == ["srv1"]
    usage = leaf.extensions.get_extension_for_class(crypto.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not leaf.extensions.get_extension_for_class(crypto.BasicConstraints).value.ca
    with pytest.raises(crypto.ExtensionNotFound):
        leaf.extensions.get_extension_for_class(crypto.SubjectAlternativeName)


def test_a_bare_public_key_will_do() -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    spki = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert issued(spki.decode()).public_key() == key


def test_a_broker_gets_its_name_and_may_only_serve() -> None:
    leaf = issued(x509.request_pem(x509.generate_key_pem()), Purpose.SERVER, dns_names=("broker.f.xfleet",))
    names = leaf.extensions.get_extension_for_class(crypto.SubjectAlternativeName).value
    assert names.get_values_for_type(crypto.DNSName) == ["broker.f.xfleet"]
    usage = leaf.extensions.get_extension_for_class(crypto.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_a_request_signed_by_another_key_is_refused() -> None:
    mine, theirs = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    good = crypto.load_pem_x509_csr(greedy_request(mine).encode())
    other = crypto.load_pem_x509_csr(greedy_request(theirs).encode())
    der = good.public_bytes(serialization.Encoding.DER)
    forged = der.replace(_point(mine), _point(theirs))
    assert other.is_signature_valid
    pem = crypto.load_der_x509_csr(forged).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(BadKeyError, match="not signed by the key"):
        x509.public_key_of(pem)


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


@pytest.mark.parametrize(
    "public",
    [
        ec.generate_private_key(ec.SECP384R1()).public_key(),
        ed25519.Ed25519PrivateKey.generate().public_key(),
        rsa.generate_private_key(65537, 1024).public_key(),
    ],
)
def test_other_kinds_of_keys_are_refused(public: ec.EllipticCurvePublicKey) -> None:
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(BadKeyError, match="P-256"):
        x509.public_key_of(pem.decode())


@pytest.mark.parametrize(
    "text", ["", "hello", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----"]
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(BadKeyError):
        x509.public_key_of(text)
    with pytest.raises(BadKeyError):
        x509.load_key(text)


def test_the_chain_leads_to_the_root() -> None:
    leaf = x509.issue_leaf(INTERMEDIATE, "x", Purpose.CLIENT, now=NOW, lifetime=timedelta(days=1))
    first, second = crypto.load_pem_x509_certificates(leaf.chain_pem.encode())
    first.verify_directly_issued_by(second)
    second.verify_directly_issued_by(crypto.load_pem_x509_certificate(ROOT.certificate_pem.encode()))
    assert x509.common_name(leaf.chain_pem) == "x"
    assert x509.expires_at(leaf.chain_pem) == NOW + timedelta(days=1)


def test_a_late_clock_can_still_use_a_new_certificate() -> None:
    leaf = issued(x509.request_pem(x509.generate_key_pem()))
    assert leaf.not_valid_before_utc == NOW - timedelta(days=1)


def test_private_keys_are_not_in_reprs() -> None:
    assert "PRIVATE" not in repr(ROOT)
    assert "PRIVATE" not in repr(x509.issue_leaf(ROOT, "x", Purpose.ROUTE, now=NOW, lifetime=timedelta(days=1)))
