"""NKeys are spelled as NATS spells them, and mistakes are named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xfleet_runtime.keys.nkeys import BadKeyError, KeyPair, Kind, parse_public, require_public, verify

# From the documentation of nkeys: a user seed and its public key.
DOCUMENTED_SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
DOCUMENTED_PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"


def test_the_documented_seed_gives_the_documented_key() -> None:
    pair = KeyPair.from_seed(DOCUMENTED_SEED)
    assert pair.public == DOCUMENTED_PUBLIC
    assert pair.seed == DOCUMENTED_SEED
    assert pair.kind is Kind.USER


@pytest.mark.parametrize(("kind", "letter"), [(Kind.USER, "U"), (Kind.ACCOUNT, "A"), (Kind.OPERATOR, "O")])
def test_each_kind_has_its_letter_and_survives_its_seed(kind: Kind, letter: str) -> None:
    pair = KeyPair.generate(kind)
    assert (pair.public[0], pair.seed[:2]) == (letter, f"S{letter}")
    again = KeyPair.from_seed(pair.seed)
    assert (again.public, again.kind) == (pair.public, kind)
    assert kind.letter == letter


@given(st.binary(max_size=200))
def test_a_signature_fits_its_own_bytes_only(data: bytes) -> None:
    pair, other = KeyPair.generate(Kind.USER), KeyPair.generate(Kind.USER)
    signature = pair.sign(data)
    assert verify(pair.public, data, signature)
    assert not verify(pair.public, data + b"x", signature)
    assert not verify(other.public, data, signature)


@pytest.mark.parametrize("text", ["", "SU", "hello", "1" * 58, DOCUMENTED_SEED[:-1], DOCUMENTED_PUBLIC, "Ü" * 58])
def test_what_is_no_seed_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(BadKeyError) as caught:
        KeyPair.from_seed(text)
    assert not text or text not in str(caught.value)


def test_a_mistyped_letter_is_noticed() -> None:
    wrong = DOCUMENTED_SEED.replace("SUACS", "SUACT")
    with pytest.raises(BadKeyError, match="checksum"):
        KeyPair.from_seed(wrong)


def test_a_seed_never_passes_for_a_public_key() -> None:
    with pytest.raises(BadKeyError):
        parse_public(DOCUMENTED_SEED)


def test_the_kind_is_checked() -> None:
    assert require_public(DOCUMENTED_PUBLIC, Kind.USER) == DOCUMENTED_PUBLIC
    with pytest.raises(BadKeyError, match="expected account nkey, got user nkey"):
        require_public(DOCUMENTED_PUBLIC, Kind.ACCOUNT)


@given(st.text(max_size=80))
def test_no_text_makes_the_parser_fail_otherwise(text: str) -> None:
    for parse in (KeyPair.from_seed, parse_public):
        try:
            parse(text)
        except BadKeyError:
            continue


def test_the_secret_is_not_in_the_repr() -> None:
    assert repr(KeyPair.from_seed(DOCUMENTED_SEED)) == f"KeyPair({DOCUMENTED_PUBLIC})"
