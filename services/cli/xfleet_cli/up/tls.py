"""The panel's certificate: the one that was given, else one of an authority of our own, kept in the data directory."""

import ipaddress
import socket
import ssl
from datetime import timedelta
from pathlib import Path

import msgspec
import psutil

from xfleet_runtime.clock import Clock
from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import write_private
from xfleet_runtime.keys import x509

AUTHORITY_LIFETIME = timedelta(days=10 * 365)
LEAF_LIFETIME = timedelta(days=397)
"""What browsers accept at most, with a day to spare."""
RENEW_BEFORE = timedelta(days=60)


class PanelCertificate(msgspec.Struct, frozen=True):
    """Files for the panel's listener, and what people compare."""

    chain: Path
    key: Path
    fingerprint: str
    """SHA-256 of the certificate, as browsers show it."""
    own: bool
    """Whether it is of our own authority, which no browser knows."""


def given_certificate(chain: Path, key: Path) -> PanelCertificate:
    """The operator's files. Raises `Unusable` when they cannot be read or do not belong together."""
    chain, key = chain.expanduser().absolute(), key.expanduser().absolute()
    for file in (chain, key):
        try:
            file.read_bytes()
        except OSError as error:
            raise Unusable(f"Cannot read {file}: {error.strerror}. Check --tls-cert and --tls-key.") from error
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(chain, key)
        return PanelCertificate(chain, key, _shown(x509.fingerprint(chain.read_text(encoding="ascii"))), own=False)
    except (ssl.SSLError, ValueError) as error:
        raise Unusable(
            f"{chain} and {key} are not a certificate and its key in PEM ({error}). Check --tls-cert and --tls-key."
        ) from error


def own_certificate(directory: Path, clock: Clock) -> PanelCertificate:
    """A certificate for every address of this machine; made, and renewed before it ends, under an authority we keep."""
    chain, key = directory / "panel.crt", directory / "panel.key"
    addresses = machine_addresses()
    if not _still_good(chain, key, addresses, clock):
        authority = _authority(directory, clock)
        leaf = x509.issue_leaf(
            authority,
            "xfleet panel",
            x509.Purpose.SERVER,
            now=clock.now(),
            lifetime=LEAF_LIFETIME - x509.BACKDATE,
            dns_names=_names(),
            addresses=addresses,
        )
        write_private(key, leaf.key_pem.encode())
        write_private(chain, leaf.chain_pem.encode())
        write_private(directory / "panel.addresses", " ".join(addresses).encode())
    return PanelCertificate(chain, key, _shown(x509.fingerprint(chain.read_text(encoding="ascii"))), own=True)


def machine_addresses() -> tuple[str, ...]:
    """The addresses of this machine's interfaces, loopback included, without link-local ones."""
    found: set[str] = set()
    for interface in psutil.net_if_addrs().values():
        for address in interface:
            if address.family in {socket.AF_INET, socket.AF_INET6}:
                text = address.address.partition("%")[0]
                if not ipaddress.ip_address(text).is_link_local:
                    found.add(text)
    return tuple(sorted(found | {"127.0.0.1"}))


def default_address() -> str:
    """The address this machine would use towards the world; loopback when there is no route. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return probe.getsockname()[0]


def _authority(directory: Path, clock: Clock) -> x509.Authority:
    certificate, key = directory / "ca.crt", directory / "ca.key"
    if certificate.exists() and key.exists():
        return x509.Authority(certificate_pem=certificate.read_text("ascii"), key_pem=key.read_text("ascii"))
    authority = x509.create_root("xfleet panel authority", now=clock.now(), lifetime=AUTHORITY_LIFETIME)
    write_private(key, authority.key_pem.encode())
    write_private(certificate, authority.certificate_pem.encode())
    return authority


def _still_good(chain: Path, key: Path, addresses: tuple[str, ...], clock: Clock) -> bool:
    known = chain.with_name("panel.addresses")
    if not (chain.exists() and key.exists() and known.exists()):
        return False
    same = set(addresses) <= set(known.read_text("ascii").split())
    return same and x509.expires_at(chain.read_text("ascii")) - clock.now() > RENEW_BEFORE


def _names() -> tuple[str, ...]:
    name = socket.gethostname()
    return ("localhost", name) if name.isascii() and name != "localhost" else ("localhost",)


def _shown(hexadecimal: str) -> str:
    upper = hexadecimal.upper()
    return ":".join(upper[at : at + 2] for at in range(0, len(upper), 2))
