"""Domain certificates on this machine: `certs/<name>/cert.pem` and `key.pem`, the key readable by the agent alone.

A directory is put into place as a whole, so that nobody ever reads a certificate beside the key of another.
"""

import ipaddress
import os
import re
import secrets
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from xfleet_contracts.care import ArchiveRefused, CertificateInfo, CertificatePem, CertificateUnknown, DomainWrong
from xfleet_contracts.errors import MessageMalformed
from xfleet_runtime.files import private_directory, sync_directory, write_private
from xfleet_runtime.log import get_logger

CERTIFICATE, KEY = "cert.pem", "key.pem"
MAX_DOMAINS = 50
MAX_DAYS = 3650
MAX_FILE_BYTES = 256 * 1024
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")
_HOST = re.compile(r"(?=.{1,253}$)(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_BACKDATE = timedelta(hours=1)
_MAX_COMMON_NAME = 64
_log = get_logger(__name__)


class Certificates:
    """The directory of domain certificates. Its methods touch the disk; call them aside."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def list(self) -> tuple[CertificateInfo, ...]:
        """Every certificate, by name; what cannot be read as one is left out and logged."""
        if not self._directory.is_dir():
            return ()
        found: list[CertificateInfo] = []
        for each in sorted(self._directory.iterdir()):
            if NAME.fullmatch(each.name) and (each / CERTIFICATE).is_file():
                try:
                    found.append(self._info(each.name, _read(each / CERTIFICATE)))
                except (ValueError, OSError) as error:
                    _log.warning("a certificate cannot be read", name=each.name, reason=str(error))
        return tuple(found)

    def get(self, name: str) -> CertificatePem:
        """One certificate without its key. Raises `CertificateUnknown`."""
        path = self._directory / name / CERTIFICATE
        if not NAME.fullmatch(name) or not path.is_file():
            raise CertificateUnknown(name=name[:100])
        try:
            data = _read(path)
            chain = x509.load_pem_x509_certificates(data)
            info = self._info(name, data)
        except (ValueError, OSError) as error:
            raise CertificateUnknown(f"The certificate cannot be read: {error}", name=name) from error
        pem = "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in chain)
        return CertificatePem(info=info, certificate_pem=pem)

    def generate(self, domains: tuple[str, ...], days_count: int, *, now: datetime) -> CertificateInfo:
        """A new self-signed certificate; one of the same name is replaced. Raises `DomainWrong`, `MessageMalformed`."""
        if not 0 < len(domains) <= MAX_DOMAINS:
            raise MessageMalformed(f"A certificate names 1 to {MAX_DOMAINS} domains.", field="domains")
        if not 0 < days_count <= MAX_DAYS:
            raise MessageMalformed(f"A certificate lives 1 to {MAX_DAYS} days.", field="days_count")
        names = tuple(dict.fromkeys(_subject_name(domain) for domain in domains))
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _self_signed(key, names, now, timedelta(days=days_count))
        key_pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        name = _file_name(domains[0])
        self._place(name, pem, key_pem)
        return self._info(name, pem)

    def files(self) -> dict[str, Path]:
        """`<name>/cert.pem` and `<name>/key.pem` to file, of every certificate: for a backup."""
        return {
            f"{info.name}/{part}": self._directory / info.name / part
            for info in self.list()
            for part in (CERTIFICATE, KEY)
            if (self._directory / info.name / part).is_file()
        }

    def restore(self, name: str, certificate_pem: bytes, key_pem: bytes) -> None:
        """Puts one back. Raises `ArchiveRefused` unless the key is the certificate's."""
        check_pair(name, certificate_pem, key_pem)
        self._place(name, certificate_pem, key_pem)

    def _place(self, name: str, certificate_pem: bytes, key_pem: bytes) -> None:
        """A link is swapped at once; a directory that somebody made by hand becomes the first that is replaced."""
        kept = private_directory(private_directory(self._directory) / ".kept")
        new = private_directory(kept / f"{name}.{secrets.token_hex(4)}")
        write_private(new / KEY, key_pem)
        write_private(new / CERTIFICATE, certificate_pem)
        place = self._directory / name
        if place.is_dir() and not place.is_symlink():
            place.rename(kept / f"{name}.by-hand.{secrets.token_hex(4)}")
        old = place.resolve() if place.is_symlink() else None
        link = self._directory / f".{name}.{secrets.token_hex(4)}"
        link.symlink_to(Path(kept.name, new.name))
        link.replace(place)
        sync_directory(self._directory)
        if old is not None and old.parent == kept.resolve() and old != new.resolve():
            shutil.rmtree(old, ignore_errors=True)

    def _info(self, name: str, data: bytes) -> CertificateInfo:
        leaf = x509.load_pem_x509_certificates(data)[0]
        directory = self._directory / name
        return CertificateInfo(
            name=name,
            domains=_domains_of(leaf),
            issuer=leaf.issuer.rfc4514_string(),
            self_signed=leaf.issuer == leaf.subject,
            not_before_ms=_ms(leaf.not_valid_before_utc),
            not_after_ms=_ms(leaf.not_valid_after_utc),
            sha256=leaf.fingerprint(hashes.SHA256()).hex(),
            certificate_path=str(directory / CERTIFICATE),
            key_path=str(directory / KEY) if os.access(directory / KEY, os.R_OK) else "",
        )


def check_pair(name: str, certificate_pem: bytes, key_pem: bytes) -> None:
    """Raises `ArchiveRefused` unless these are a certificate and its own key."""
    try:
        leaf = x509.load_pem_x509_certificates(certificate_pem)[0]
        key = serialization.load_pem_private_key(key_pem, None)
        same = _spki(key.public_key()) == _spki(leaf.public_key())
    except (ValueError, TypeError, IndexError) as error:
        raise ArchiveRefused(f"{name} is no certificate with its key: {error}", name=name) from error
    if not same:
        raise ArchiveRefused(f"The key of {name} is not its certificate's.", name=name)


def _spki(key: object) -> bytes:
    encode = getattr(key, "public_bytes", None)
    if encode is None:
        raise ValueError("a key of an unknown kind")
    return encode(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _self_signed(
    key: ec.EllipticCurvePrivateKey, names: tuple[x509.GeneralName, ...], now: datetime, lifetime: timedelta
) -> x509.Certificate:
    first = str(names[0].value)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, first[:_MAX_COMMON_NAME])])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectAlternativeName(list(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    return builder.sign(key, hashes.SHA256())


def _subject_name(domain: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(domain))
    except ValueError:
        pass
    if not _HOST.fullmatch(domain.lower()):
        raise DomainWrong(domain=domain[:300])
    return x509.DNSName(domain.lower())


def _file_name(domain: str) -> str:
    return domain.lower().replace("*", "_wildcard").replace(":", "-")[:200]


def _domains_of(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return tuple(str(each.value) for each in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME))
    return tuple(str(each.value) for each in names if isinstance(each, (x509.DNSName, x509.IPAddress)))


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES)


def _ms(at: datetime) -> int:
    return int(at.astimezone(UTC).timestamp() * 1000)
