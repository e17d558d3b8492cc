"""The panel's certificate."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509 as cx509

from xfleet_cli.up.tls import LEAF_LIFETIME, given_certificate, machine_addresses, own_certificate
from xfleet_runtime.clock import FakeClock, SystemClock
from xfleet_runtime.errors import Unusable
from xfleet_runtime.keys import x509


def names_of(chain: Path) -> tuple[list[str], list[str]]:
    certificate = cx509.load_pem_x509_certificate(chain.read_bytes())
    names = certificate.extensions.get_extension_for_class(cx509.SubjectAlternativeName).value
    return names.get_values_for_type(cx509.DNSName), [str(a) for a in names.get_values_for_type(cx509.IPAddress)]


def test_our_own_certificate_names_this_machine_and_is_kept(tmp_path: Path) -> None:
    first = own_certificate(tmp_path, SystemClock())
    again = own_certificate(tmp_path, SystemClock())
    dns, addresses = names_of(first.chain)
    assert "localhost" in dns
    assert set(addresses) == set(machine_addresses())
    assert first.fingerprint == again.fingerprint
    assert len(first.fingerprint.split(":")) == 32
    assert first.key.stat().st_mode & 0o777 == 0o600
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(first.chain, first.key)


def test_it_is_renewed_before_it_ends_under_the_same_authority(tmp_path: Path) -> None:
    clock = FakeClock(datetime(2026, 1, 1, tzinfo=UTC))
    first = own_certificate(tmp_path, clock)
    authority = (tmp_path / "ca.crt").read_bytes()
    assert x509.expires_at(first.chain.read_text()) - clock.now() < LEAF_LIFETIME
    clock.advance(timedelta(days=360).total_seconds())
    renewed = own_certificate(tmp_path, clock)
    assert renewed.fingerprint != first.fingerprint
    assert (tmp_path / "ca.crt").read_bytes() == authority


def test_given_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    one, other = own_certificate(tmp_path / "1", SystemClock()), own_certificate(tmp_path / "2", SystemClock())
    assert given_certificate(one.chain, one.key).own is False
    with pytest.raises(Unusable, match="not a certificate and its key"):
        given_certificate(one.chain, other.key)
    with pytest.raises(Unusable, match="Cannot read"):
        given_certificate(tmp_path / "absent.pem", one.key)
