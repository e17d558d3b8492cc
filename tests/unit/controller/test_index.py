"""The index of hashes agrees with the contract's digest, whatever happens to it."""

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from xfleet_contracts.desired_state import digest_of
from xfleet_controller.servers.compile import Scope
from xfleet_controller.servers.index import Name, StateIndex, key_of

ids = st.one_of(
    st.tuples(st.integers(1, 30), st.integers(1, 30)).map(lambda pair: f"{pair[0]}.{pair[1]}"),
    st.text("abz019.-_\u00e9", min_size=1, max_size=6),
)
names = st.tuples(st.sampled_from(["client", "inbound", "outbound", "rule", "settings"]), ids)
states = st.dictionaries(names, st.binary(max_size=8), max_size=30)


def index_of(bodies: dict[Name, bytes]) -> StateIndex:
    return StateIndex({name: sha256(body).hexdigest() for name, body in bodies.items()})


@given(states)
def test_the_digest_is_the_contracts(bodies: dict[Name, bytes]) -> None:
    assert index_of(bodies).digest == digest_of({key_of(name): body for name, body in bodies.items()})


@given(states, states, st.sets(names, max_size=10))
def test_a_changed_index_is_the_index_of_the_changed(
    before: dict[Name, bytes], put: dict[Name, bytes], remove: set[Name]
) -> None:
    index = index_of(before)
    digest = index.digest
    gone = remove - put.keys()
    changed = index.after({name: sha256(body).hexdigest() for name, body in put.items()}, gone)
    after = {name: body for name, body in before.items() if name not in gone} | put
    assert changed.digest == index_of(after).digest
    assert changed.names() == tuple(sorted(after))
    assert index.digest == digest


@given(
    st.sets(st.tuples(st.integers(1, 15), st.integers(1, 5)), max_size=40),
    st.sets(st.integers(1, 5)),
    st.integers(1, 15),
    st.integers(1, 5),
)
def test_a_scope_finds_exactly_what_is_in_it(
    pairs: set[tuple[int, int]], inbounds: set[int], client: int, inbound: int
) -> None:
    everything = {("client", f"{c}.{i}") for c, i in pairs} | {("inbound", str(i)) for i in inbounds}
    index = StateIndex(dict.fromkeys(everything | {("settings", "xray")}, "0" * 64))
    assert Scope(clients=frozenset({client})).names_in(index) == {
        ("client", f"{c}.{i}") for c, i in pairs if c == client
    }
    assert Scope(inbounds=frozenset({inbound})).names_in(index) == {
        each
        for each in everything
        if each == ("inbound", str(inbound)) or (each[0] == "client" and each[1].split(".")[1] == str(inbound))
    }
    assert Scope(whole=True).names_in(index) == everything | {("settings", "xray")}
