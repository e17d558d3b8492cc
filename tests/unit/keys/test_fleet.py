"""A fleet's keys: what is issued, for how long, and which account state comes next."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xfleet_nats.accounts import LONGEST_LIFETIME, PRUNE_AFTER, AccountState, plan_account, read_account
from xfleet_nats.fleet import (
    FleetIssuer,
    FleetKeys,
    KeyUnusable,
    NameUnusable,
    create_fleet,
    with_all_roles,
    with_command_key,
)
from xfleet_nats.roles import ROLES
from xfleet_runtime.clock import FakeClock
from xfleet_runtime.errors import Unusable
from xfleet_runtime.keys import jwt, x509
from xfleet_runtime.keys.nkeys import KeyPair, Kind

CLOCK = FakeClock(datetime(2026, 5, 1, tzinfo=UTC))
ROOT, KEYS = create_fleet("f1", clock=CLOCK)
ISSUER = FleetIssuer(KEYS, CLOCK)
USER = KeyPair.generate(Kind.USER).public


def test_online_keys_hold_no_secret_of_the_root() -> None:
    online = msgspec.json.encode(KEYS)
    for secret in (ROOT.ca_key_pem, ROOT.operator_seed):
        assert secret.strip().splitlines()[0 if "\n" not in secret.strip() else 1].encode() not in online
    assert msgspec.json.encode(ROOT.manifest_seed) not in online
    assert ROOT.manifest_key.public == KEYS.root_public


def test_keys_survive_being_stored() -> None:
    assert msgspec.json.decode(msgspec.json.encode(KEYS), type=FleetKeys) == KEYS


def test_secrets_are_not_in_reprs() -> None:
    assert (repr(ROOT), repr(KEYS)) == ("FleetRoot(f1)", "FleetKeys(f1)")
    credentials = ISSUER.bus_credentials("bot", "bot", ("tls://h:1",))
    assert credentials.seed not in repr(credentials)


@pytest.mark.parametrize("fleet_id", ["", "A", "a.b", "a_b", "a b", "-a"])
def test_a_fleet_id_must_fit_a_host_name(fleet_id: str) -> None:
    with pytest.raises(NameUnusable):
        create_fleet(fleet_id)


@pytest.mark.parametrize("role", sorted(ROLES))
def test_credentials_fit_together_and_belong_to_their_role(role: str) -> None:
    credentials = ISSUER.bus_credentials(role, "one", ("tls://127.0.0.1:4222",))
    credentials.check()
    claims = jwt.decode(credentials.jwt)
    assert claims.iss == KeyPair.from_seed(KEYS.role_seeds[role]).public
    assert credentials.inbox_prefix == f"_INBOX.{ROLES[role].inbox}.one"
    assert ISSUER.expiry(credentials) == CLOCK.now() + timedelta(days=365)


def test_credentials_that_do_not_fit_are_refused_in_one_line() -> None:
    one, two = (ISSUER.bus_credentials("bot", "bot", ()) for _ in range(2))
    for broken in (
        msgspec.structs.replace(one, seed=two.seed),
        msgspec.structs.replace(one, seed="SU"),
        msgspec.structs.replace(one, jwt="x"),
        msgspec.structs.replace(one, key_pem=two.key_pem),
        msgspec.structs.replace(one, ca_pem="x"),
    ):
        with pytest.raises(Unusable, match="credentials are broken"):
            broken.check()


def test_an_agent_gets_a_year() -> None:
    token, certificate = ISSUER.issue_agent("srv1", USER, x509.request_pem(x509.generate_key_pem()))
    assert jwt.decode(token).exp == int((CLOCK.now() + timedelta(days=365)).timestamp())
    assert x509.expires_at(certificate) == CLOCK.now() + timedelta(days=365)
    assert x509.common_name(certificate) == "srv1"


def test_no_token_outlives_its_revocation() -> None:
    token = ISSUER.issue_user_jwt("agent", "srv1", USER, CLOCK.now() + timedelta(days=5000))
    assert jwt.decode(token).exp == int((CLOCK.now() + LONGEST_LIFETIME).timestamp())
    assert PRUNE_AFTER > LONGEST_LIFETIME


@pytest.mark.parametrize(
    "nkey",
    ["", "hello", KeyPair.generate(Kind.ACCOUNT).public, KeyPair.generate(Kind.USER).seed],
    ids=["empty", "no key", "an account", "a seed"],
)
def test_what_is_no_user_key_is_not_certified(nkey: str) -> None:
    with pytest.raises(KeyUnusable):
        ISSUER.issue_user_jwt("agent", "srv1", nkey, CLOCK.now())


def test_what_is_no_request_is_not_certified() -> None:
    with pytest.raises(KeyUnusable):
        ISSUER.issue_client_certificate("hello", "srv1", CLOCK.now())


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(NameUnusable, match="no role root"):
        ISSUER.issue_user_jwt("root", "x", USER, CLOCK.now())


def test_a_fleet_of_an_older_release_gets_the_new_roles_and_keeps_the_old_keys() -> None:
    older = msgspec.structs.replace(KEYS, role_seeds={k: v for k, v in KEYS.role_seeds.items() if k != "cli"})
    newer = with_all_roles(older)
    assert newer.role_seeds.keys() == KEYS.role_seeds.keys()
    assert older.role_seeds.items() <= newer.role_seeds.items()
    assert with_all_roles(KEYS) is KEYS


def test_each_controller_has_a_command_key_of_its_own() -> None:
    both = with_command_key(KEYS, "second")
    assert both.command_key("second").id != both.command_key().id == KEYS.command_key().id
    assert with_command_key(both, "second") is both


states = st.builds(
    AccountState,
    serial=st.integers(0, 1000),
    issued_at=st.integers(0, 2_000_000_000),
    revocations=st.dictionaries(st.sampled_from("ABC"), st.integers(1_770_000_000, 1_780_000_000)),
)


@given(
    st.dictionaries(st.sampled_from("ABCD"), st.integers(1_770_000_000, 1_780_000_000)), st.lists(states, max_size=3)
)
def test_the_next_account_state_loses_nothing_and_is_newer_than_all(
    meant: dict[str, int], held: list[AccountState]
) -> None:
    state = plan_account(meant, held, serial=5, now=CLOCK.now())
    for known in (meant, *(each.revocations for each in held)):
        for public, moment in known.items():
            assert state.revocations[public] >= moment
    assert state.serial > max([5, *(each.serial for each in held)])
    assert all(state.issued_at > each.issued_at for each in held)


def test_revocations_of_tokens_long_dead_are_dropped() -> None:
    long_ago = int((CLOCK.now() - PRUNE_AFTER - timedelta(days=1)).timestamp())
    lately = int(CLOCK.now().timestamp())
    held = AccountState(serial=1, issued_at=1, revocations={"OLD": long_ago, "NEW": lately})
    assert plan_account({}, [held], serial=1, now=CLOCK.now()).revocations == {"NEW": lately}


def test_an_account_token_says_what_it_was_built_from() -> None:
    state = AccountState(serial=7, issued_at=1_800_000_000, revocations={USER: 5})
    assert read_account(ISSUER.account_jwt(state)) == state
    assert read_account(ISSUER.account_jwt()).revocations == {}
