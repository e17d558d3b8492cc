"""What is kept on disk, byte for byte, and the digests over it."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from xfleet_agent.desired import effective, settle_by_lint
from xfleet_agent.digests import DigestIndex
from xfleet_agent.journal import Journal
from xfleet_agent.state import Refused, StateStore
from xfleet_contracts import codec
from xfleet_contracts.desired_state import ClientBody, EntityKey, InboundBody, StatePoint, digest_of

KEYS = st.builds(
    lambda kind, name: EntityKey(kind=kind, id=name),
    st.sampled_from(["inbound", "client", "rule"]),
    st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=4),
)
STATES = st.dictionaries(KEYS, st.binary(max_size=6), max_size=8)


@given(STATES, STATES, st.lists(KEYS, max_size=4))
def test_the_kept_digest_is_the_contracts(old: dict, put: dict, remove: list[EntityKey]) -> None:
    after = {key: body for key, body in old.items() if key not in remove} | put
    index = DigestIndex(old)
    assert index.changed(put, remove).hexdigest() == digest_of(after)
    assert index.hexdigest() == digest_of(old)


def test_entities_survive_byte_for_byte(tmp_path: Path) -> None:
    key, odd = EntityKey(kind="rule", id="r"), b'{ "position" :1.0,"rule":{}}'
    store = StateStore(tmp_path / "state.db")
    point = StatePoint(revision=1, digest=digest_of({key: odd}))
    assert store.change_wanted(point, {key: odd}, [])
    assert not store.change_wanted(StatePoint(revision=2, digest="no"), {}, [key])
    store.close()
    again = StateStore(tmp_path / "state.db")
    assert again.wanted == {key: odd}
    assert again.wanted_point == point
    again.close()


def inbound(ref: int, port: int, **more: object) -> tuple[EntityKey, bytes]:
    stream = {"network": "ws", "wsSettings": {"path": "/x"}}
    body = InboundBody(ref=ref, port=port, protocol="vless", settings={"decryption": "none"}, stream_settings=stream)
    return EntityKey(kind="inbound", id=str(ref)), codec.canonical(body) + b" " * int(str(more.get("version", 0)))


def client(ref: int, on: int, uuid: str) -> tuple[EntityKey, bytes]:
    return EntityKey(kind="client", id=f"{ref}.{on}"), codec.canonical(ClientBody(client=ref, inbound=on, uuid=uuid))


UUID = "2b0c1f1e-0000-4000-8000-00000000000"


def test_a_refused_version_gives_way_to_the_last_that_ran() -> None:
    key, old = inbound(7, 443)
    _, new = inbound(7, 443, version=1)
    refused = Refused(key=key, digest=codec.sha256_hex(new), path="", code="x", reason="")
    assert effective({key: new}, {key: old}, {key: refused}, ()) == {key: old}
    assert effective({key: new}, {}, {key: refused}, ()) == {}
    _, newer = inbound(7, 443, version=2)
    assert effective({key: newer}, {key: old}, {key: refused}, ()) == {key: newer}


def test_removals_and_cuts_always_apply() -> None:
    (key, body), (one, one_body), (two, two_body) = inbound(7, 443), client(1, 7, UUID + "1"), client(2, 7, UUID + "2")
    applied = {key: body, one: one_body, two: two_body}
    assert effective({key: body, one: one_body, two: two_body}, applied, {}, {2}) == {key: body, one: one_body}
    assert effective({key: body}, applied, {}, ()) == {key: body}


def test_clients_of_a_refused_inbound_wait_without_being_refused_themselves() -> None:
    (key, body), (one, one_body) = inbound(7, 443), client(1, 7, UUID + "1")
    (clash, clash_body), (two, two_body) = inbound(8, 443), client(2, 8, UUID + "2")
    wanted = {key: body, one: one_body, clash: clash_body, two: two_body}
    bodies, refusals = settle_by_lint(wanted, {}, {}, ())
    assert bodies == {key: body, one: one_body}
    assert [(refused.key, refused.code) for refused in refusals.values()] == [(clash, "duplicate_port")]


def test_what_runs_already_is_not_refused_by_lint() -> None:
    (key, body), (clash, clash_body) = inbound(7, 443), inbound(8, 443)
    both = {key: body, clash: clash_body}
    assert settle_by_lint(both, both, {}, ())[1] == {}


def test_commands_are_remembered_until_nobody_asks(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "state.db")
    journal = Journal(store.db)
    journal.begin("id", "xray.restart", "d", "i1", forget_at_ms=100)
    torn = journal.find("id")
    assert torn is not None
    assert (torn.reply, torn.instance) == (None, "i1")
    journal.end("id", b"answer")
    again = journal.find("id")
    assert again is not None
    assert again.reply == b"answer"
    journal.prune(101)
    assert journal.find("id") is None
    store.close()
