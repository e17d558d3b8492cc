"""A command is believed for its signature alone, on its subject alone."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xfleet_contracts.enrollment import Manifest, SignedManifest
from xfleet_contracts.errors import MessageMalformed, Refusal
from xfleet_runtime.keys import signing
from xfleet_runtime.keys.nkeys import BadKeyError
from xfleet_runtime.keys.signing import Asked, SigningKey

KEY, OTHER = SigningKey.from_seed(bytes(32)), SigningKey.from_seed(bytes([1]) * 32)  # ids must not change per run
TRUSTED = {KEY.id: KEY.public}
MANIFEST = Manifest(
    fleet_id="f",
    serial=3,
    issued_at_ms=1,
    command_keys=(signing.command_key(KEY),),
    ca_pem="",
    broker_urls=(),
    tls_name="broker.f.xfleet",
)


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40), st.binary(max_size=200))
def test_what_was_signed_verifies(subject: str, payload: bytes) -> None:
    header = signing.sign_command(KEY, subject, payload)
    assert header.startswith(f"v1 {KEY.id} ")
    assert signing.verify_command(TRUSTED, header, subject, payload) == KEY.id


def test_a_command_cannot_be_moved_or_changed() -> None:
    header = signing.sign_command(KEY, "fleet.cmd.srv1.restart", b"{}")
    for subject, payload in (
        ("fleet.cmd.srv2.restart", b"{}"),
        ("fleet.cmd.srv1.stop", b"{}"),
        ("fleet.cmd.srv1.restart", b"{} "),
        ("fleet.cmd.srv1", b"restart\0{}"),
    ):
        with pytest.raises(signing.SignatureWrong):
            signing.verify_command(TRUSTED, header, subject, payload)


@pytest.mark.parametrize(
    ("header", "refusal"),
    [
        (None, signing.SignatureMissing),
        ("", signing.SignatureMissing),
        ("v1", signing.SignatureMalformed),
        ("v1 x", signing.SignatureMalformed),
        (f"v2 {KEY.id} AAAA", signing.SignatureMalformed),
        (f"v1 {KEY.id} !!!!", signing.SignatureMalformed),
        (f"v1 {KEY.id} AAAA", signing.SignatureWrong),
        ("v1 nobody AAAA", signing.SignatureKeyUnknown),
        (signing.sign_command(OTHER, "s", b"p"), signing.SignatureKeyUnknown),
        (signing.sign_command(OTHER, "s", b"p").replace(OTHER.id, KEY.id), signing.SignatureWrong),
    ],
)
def test_every_other_header_is_refused_by_name(header: str | None, refusal: type[Refusal]) -> None:
    with pytest.raises(refusal):
        signing.verify_command(TRUSTED, header, "s", b"p")


@given(st.text(max_size=80))
def test_no_header_makes_the_check_fail_otherwise(header: str) -> None:
    with pytest.raises(Refusal):
        signing.verify_command(TRUSTED, header, "s", b"p")


def test_an_answer_fits_its_own_call_and_nothing_else() -> None:
    asked = Asked(reply="_INBOX.a.srv1.x.1", subject="fleet.rpc.srv1.ledger", question=b"{}")
    header = signing.sign_answer(KEY, asked, b"[]")
    assert signing.verify_answer(TRUSTED, header, asked, b"[]") == KEY.id
    for moved in (
        msgspec.structs.replace(asked, reply="_INBOX.a.srv1.x.2"),
        msgspec.structs.replace(asked, subject="fleet.rpc.srv1.ledger_batch"),
        msgspec.structs.replace(asked, question=b"{} "),
    ):
        with pytest.raises(signing.SignatureWrong):
            signing.verify_answer(TRUSTED, header, moved, b"[]")
    for wrong in (
        header,
        signing.sign_command(KEY, asked.reply, b"[0]"),
        signing.sign_command(KEY, asked.subject, b"[0]"),
    ):
        with pytest.raises(signing.SignatureWrong):
            signing.verify_answer(TRUSTED, wrong, asked, b"[0]")
    with pytest.raises(signing.SignatureKeyUnknown):
        signing.verify_answer(TRUSTED, signing.sign_answer(OTHER, asked, b"[]"), asked, b"[]")


def test_a_manifest_opens_under_its_root_only() -> None:
    signed = signing.sign_manifest(KEY, MANIFEST)
    assert signing.open_manifest(KEY.public, signed) == MANIFEST
    assert signing.trusted_keys(MANIFEST) == TRUSTED
    with pytest.raises(signing.ManifestUntrusted):
        signing.open_manifest(OTHER.public, signed)
    with pytest.raises(signing.ManifestUntrusted):
        signing.open_manifest(KEY.public, msgspec.structs.replace(signed, payload=signed.payload + b" "))
    with pytest.raises(signing.ManifestUntrusted):
        signing.open_manifest(b"short", signed)


def test_a_signature_for_a_command_is_none_for_a_manifest() -> None:
    payload = msgspec.json.encode(MANIFEST)
    as_command = KEY.sign(b"xfleet-cmd-v1\0s\0" + payload)
    with pytest.raises(signing.ManifestUntrusted):
        signing.open_manifest(KEY.public, SignedManifest(payload=payload, signature=as_command))


def test_genuine_bytes_that_are_no_manifest_are_malformed() -> None:
    payload = b"{}"
    signed = SignedManifest(payload=payload, signature=KEY.sign(b"xfleet-manifest-v1\0" + payload))
    with pytest.raises(MessageMalformed):
        signing.open_manifest(KEY.public, signed)


def test_a_key_survives_its_seed_and_hides_it() -> None:
    again = SigningKey.from_seed(KEY.seed)
    assert (again.id, again.public) == (KEY.id, KEY.public)
    assert repr(KEY) == f"SigningKey({KEY.id})"
    with pytest.raises(BadKeyError):
        SigningKey.from_seed(b"short")
