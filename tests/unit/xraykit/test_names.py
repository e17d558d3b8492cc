import pytest
from hypothesis import given
from hypothesis import strategies as st

from xfleet_xraykit.accounts import Account, decode_account
from xfleet_xraykit.counters import (
    ClientTraffic,
    Counter,
    client_email,
    client_traffic,
    inbound_tag,
    parse_counter,
    parse_email,
    parse_inbound_tag,
)
from xfleet_xraykit.pb.user_pb2 import User

REFS = st.integers(min_value=1, max_value=2**52 - 1)


@given(REFS, REFS)
def test_an_email_leads_back_to_client_and_inbound(client: int, inbound: int) -> None:
    assert parse_email(client_email(client, inbound)) == (client, inbound)


@given(REFS)
def test_a_tag_leads_back_to_its_inbound(inbound: int) -> None:
    assert parse_inbound_tag(inbound_tag(inbound)) == inbound


@pytest.mark.parametrize(
    "text", ["", "1", "1.", ".1", "a.b", "1.2.3", "01.2", "0.1", "-1.2", "1.²", " 1.2", f"{2**52}.1"]
)
def test_a_strangers_email_is_not_taken_for_ours(text: str) -> None:
    assert parse_email(text) is None


@pytest.mark.parametrize("tag", ["", "in-", "in-x", "in-0", "api", "in-1 ", "out-1"])
def test_a_strangers_tag_is_not_taken_for_ours(tag: str) -> None:
    assert parse_inbound_tag(tag) is None


def test_counters_are_read_from_their_names() -> None:
    assert parse_counter("user>>>3.7>>>traffic>>>uplink", 5) == Counter("user", "3.7", "uplink", 5)
    assert parse_counter("inbound>>>in-7>>>traffic>>>downlink", 6) == Counter("inbound", "in-7", "downlink", 6)
    assert parse_counter("outbound>>>a>>>b>>>traffic>>>uplink", 7) == Counter("outbound", "a>>>b", "uplink", 7)
    for name in (
        "user>>>3.7>>>online",
        "user>>>traffic>>>uplink",
        "x>>>y>>>traffic>>>uplink",
        "user>>>3.7>>>traffic>>>up",
        "",
    ):
        assert parse_counter(name, 1) is None


def test_client_traffic_adds_up_only_clients_of_ours() -> None:
    counters = [
        Counter("user", "3.7", "uplink", 5),
        Counter("user", "3.7", "downlink", 6),
        Counter("user", "somebody", "uplink", 7),
        Counter("user", "4.7", "downlink", 8),
        Counter("inbound", "3.7", "uplink", 9),
    ]
    assert client_traffic(counters) == {(3, 7): ClientTraffic(5, 6), (4, 7): ClientTraffic(0, 8)}


@given(st.text(), st.integers(min_value=0, max_value=2**32 - 1))
def test_an_accounts_bytes_are_what_protobuf_reads(text: str, number: int) -> None:
    account = Account("x", {1: number, 2: text})
    read = User.FromString(account.encode())
    assert (read.level, read.email) == (number, text)
    assert account.covers(decode_account("x", read.SerializeToString()))


@given(st.binary(max_size=40))
def test_broken_account_bytes_are_a_value_error(data: bytes) -> None:
    try:
        decode_account("x", data)
    except ValueError:
        return


def test_an_account_covers_only_what_it_says_itself() -> None:
    wanted = Account("vless", {1: "id", 2: ""})
    assert wanted.covers(Account("vless", {1: "id"}))
    assert wanted.covers(Account("vless", {1: "id", 3: "none", 4: 1}))
    assert not wanted.covers(Account("vless", {1: "id", 2: "vision"}))
    assert not wanted.covers(Account("vless", {1: "other"}))
    assert not wanted.covers(Account("trojan", {1: "id"}))
    assert "id" not in repr(Account("vless", {1: "id"}))
