"""Broker tokens: what goes in comes out, and only from whom it says."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xfleet_runtime.keys import jwt
from xfleet_runtime.keys.nkeys import BadKeyError, KeyPair, Kind

OPERATOR, ACCOUNT, USER = (KeyPair.generate(kind) for kind in (Kind.OPERATOR, Kind.ACCOUNT, Kind.USER))


def account_token(**more: object) -> str:
    options = {"scopes": (), "revocations": {}, "jetstream": True, "serial": 1, "issued_at": 100, **more}
    return jwt.account_jwt(OPERATOR, account=ACCOUNT.public, name="FLEET", **options)


def test_a_user_token_names_its_account_and_carries_no_rights() -> None:
    token = jwt.user_jwt(ACCOUNT, account=ACCOUNT.public, name="srv1", public=USER.public, issued_at=5, expires_at=9)
    claims = jwt.decode(token)
    assert (claims.sub, claims.iss, claims.name, claims.iat, claims.exp) == (USER.public, ACCOUNT.public, "srv1", 5, 9)
    assert claims.nats == {"type": "user", "version": 2, "issuer_account": ACCOUNT.public}


def test_revocations_and_serial_can_be_read_back() -> None:
    claims = jwt.decode(account_token(revocations={USER.public: 77}, serial=12))
    assert claims.type == "account"
    assert jwt.revocations_of(claims) == {USER.public: 77}
    assert jwt.serial_of(claims) == 12


def test_an_account_of_another_tool_has_serial_zero() -> None:
    token = jwt.encode(OPERATOR, subject=ACCOUNT.public, name="X", issued_at=1, nats={"type": "account"})
    claims = jwt.decode(token)
    assert (jwt.serial_of(claims), jwt.revocations_of(claims)) == (0, {})


def test_the_same_claims_make_the_same_token() -> None:
    assert account_token() == account_token()


def test_changed_claims_are_noticed() -> None:
    header, body, signature = account_token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["nats"]["revocations"] = {}
    claims["iat"] = 999
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    with pytest.raises(jwt.BadJwtError, match="signature"):
        jwt.decode(f"{header}.{forged}.{signature}")


@pytest.mark.parametrize("token", ["", "a.b.c", "a.b", "....", "e30.e30.e30"])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(jwt.BadJwtError):
        jwt.decode(token)


@given(st.text(max_size=60))
def test_no_text_makes_the_decoder_fail_otherwise(text: str) -> None:
    with pytest.raises(jwt.BadJwtError):
        jwt.decode(text)


def test_another_algorithm_is_refused() -> None:
    header = base64.urlsafe_b64encode(b'{"typ":"JWT","alg":"none"}').decode().rstrip("=")
    _, body, _ = account_token().split(".")
    signature = base64.urlsafe_b64encode(OPERATOR.sign(f"{header}.{body}".encode())).decode().rstrip("=")
    with pytest.raises(jwt.BadJwtError):
        jwt.decode(f"{header}.{body}.{signature}")


def test_keys_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(BadKeyError):
        jwt.user_jwt(ACCOUNT, account=ACCOUNT.public, name="x", public=ACCOUNT.public, issued_at=1)
    with pytest.raises(BadKeyError):
        jwt.operator_jwt(OPERATOR, name="x", signing_keys=(ACCOUNT.public,), system_account=ACCOUNT.public, issued_at=1)
