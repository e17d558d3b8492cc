"""The ledger's rules without a database."""

import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.ledger import INBOUND, NOW, ONE, TWO, batch, epoch_of
from xfleet_contracts import codec
from xfleet_contracts.traffic import Batch, ClientRow, TagRow
from xfleet_controller.traffic.allowances import MATERIAL_BYTES, NEAR_BYTES, Facts, is_news, left_of, plan_allowances
from xfleet_controller.traffic.clones import CloneWatch
from xfleet_controller.traffic.ledger import (
    Cursor,
    Known,
    LedgerSettings,
    ServerFact,
    contributions,
    interval,
    moment,
    plan_commit,
)
from xfleet_controller.traffic.limits_store import Told, Usage
from xfleet_controller.traffic.reading import Reading, Unreadable, inbound_of, pack, parse, read, unpack

E1 = epoch_of(1)
HOUR = int(NOW.timestamp()) // 3600


def known(**more: object) -> Known:
    fields: dict[str, object] = {
        "servers": {"srv1": ServerFact(1, NOW - timedelta(days=9))},
        "inbound_servers": {INBOUND: 1},
        "clients": {ONE, TWO},
        "cursors": {},
        "digests": {},
        "above": {},
        "ended_at": {},
    }
    return Known(**{**fields, **more})  # type: ignore[arg-type]


def reading(message: Batch, sid: str = "srv1") -> Reading:
    return read(sid, codec.encode(message), NOW)


@given(st.binary(max_size=2000))
def test_any_bytes_are_a_batch_or_unreadable(payload: bytes) -> None:
    try:
        parse(payload)
    except Unreadable as why:
        reason = why.reason
    else:
        reason = "malformed"
    assert reason in {"malformed", "too_large"}


ODD = [None, True, 0, -1, 2**63, 2**70, 1.5, "", "x", "\0", E1, [], [1], {}, {"a": 1}, [[ONE, INBOUND, HOUR, 1, 1]]]
odd = st.sampled_from(ODD)
FIELDS = {
    "epoch": E1,
    "seq": 1,
    "instance": "i",
    "start_id": "s",
    "from_at_ms": 1,
    "to_at_ms": 2,
    "clients": [[ONE, INBOUND, HOUR, 1, 1], [TWO, INBOUND, HOUR, 2, 2]],
    "tags": [["outbound", "direct", HOUR, 1, 1]],
    "gaps": [],
}


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, odd)),
    st.lists(st.lists(odd, max_size=6), max_size=4),
    st.sets(st.sampled_from(sorted(FIELDS)), max_size=2),
)
def test_any_json_is_planned_without_a_bug(changed: dict[str, object], more: list[object], missing: set[str]) -> None:
    fields = {**FIELDS, "clients": [*FIELDS["clients"], *more], **changed}  # type: ignore[misc]
    payload = json.dumps({name: value for name, value in fields.items() if name not in missing}).encode()
    try:
        found = read("srv1", payload, NOW)
    except Unreadable:
        return
    commit = plan_commit([found], known(), LedgerSettings(), NOW)
    assert len(commit.accepted) + len(commit.rejected) >= 1
    assert sum(commit.sums.client_up.values()) >= 0


rows = st.lists(st.tuples(st.sampled_from([ONE, TWO]), st.integers(0, 10**9), st.integers(0, 10**9)), max_size=20)


@given(st.lists(rows, max_size=6))
def test_sums_are_those_of_the_rows_however_clients_repeat(batches: list[list[tuple[int, int, int]]]) -> None:
    readings = [
        reading(batch(E1, seq, *((client, INBOUND, up, down) for client, up, down in each), tags=()))
        for seq, each in enumerate(batches, start=1)
    ]
    commit = plan_commit(readings, known(), LedgerSettings(), NOW)
    flat = [row for each in batches for row in each]
    for client in (ONE, TWO):
        assert commit.sums.client_up.get(client, 0) == sum(up for ref, up, _ in flat if ref == client)
        assert commit.sums.client_down.get(client, 0) == sum(down for ref, _, down in flat if ref == client)
    if batches:
        assert commit.cursors[1, E1].floor == len(batches)


@given(st.binary(max_size=5000))
def test_a_packed_payload_unpacks_to_itself(payload: bytes) -> None:
    assert unpack(pack(payload)) == payload


@given(st.integers(-(2**70), 2**70))
def test_any_moment_is_clamped(unix_ms: int) -> None:
    latest = NOW + timedelta(seconds=60)
    assert datetime(2020, 1, 1, tzinfo=UTC) <= moment(unix_ms, latest) <= latest


def test_an_end_is_never_before_its_predecessors_end() -> None:
    early = reading(batch(E1, 2, at=NOW - timedelta(hours=1)))
    from_at, to_at = interval(early, NOW - timedelta(seconds=20))
    assert (from_at, to_at) == (NOW - timedelta(hours=1, seconds=10), NOW - timedelta(seconds=20))


def test_a_floor_moves_over_what_was_committed_earlier() -> None:
    facts = known(cursors={(1, E1): Cursor(1, "a")}, above={(1, E1): {3: "c", 4: "d", 6: "f"}})
    commit = plan_commit([reading(batch(E1, 2))], facts, LedgerSettings(), NOW)
    assert (commit.cursors[1, E1], commit.closed) == (Cursor(4, "d"), [(1, E1)])


def test_only_what_ended_before_a_reset_is_taken_back() -> None:
    first, second = (
        reading(batch(E1, 1, (ONE, INBOUND, 1, 2), at=NOW - timedelta(minutes=1))),
        reading(batch(E1, 2, (ONE, INBOUND, 4, 8), (TWO, INBOUND, 1, 1))),
    )
    commit = plan_commit([first, second], known(), LedgerSettings(), NOW)
    assert contributions(commit.accepted, {ONE: NOW - timedelta(seconds=30)}) == {ONE: (1, 2)}
    assert contributions(commit.accepted, {ONE: NOW + timedelta(seconds=30)}) == {ONE: (5, 10)}


@pytest.mark.parametrize(
    ("tag", "ref"), [("501", 501), ("", None), ("api", None), ("٣", None), ("-1", None), ("9" * 30, None)]
)
def test_an_inbounds_tag_is_its_ref_in_decimal(tag: str, ref: int | None) -> None:
    assert inbound_of(tag) == ref


def test_a_row_that_cannot_be_read_keeps_its_place() -> None:
    fields = msgspec.json.decode(codec.encode(batch(E1, 1, (ONE, INBOUND, 1, 1), (TWO, INBOUND, 1, 1))))
    fields["clients"][0] = "?"
    fields["tags"] = [["inbound", "501", HOUR, 1, 1], ["sideways", "501", HOUR, 1, 1]]
    parsed = parse(codec.canonical(fields))
    assert parsed.clients == [None, ClientRow(TWO, INBOUND, HOUR, 1, 1)]
    assert parsed.tags == [TagRow("inbound", "501", HOUR, 1, 1), None]


def usage(total: int | None, used: int) -> Usage:
    return Usage(ONE, "c", total, used, None, None)


GIB = 1024**3


@pytest.mark.parametrize(
    ("total", "used", "left"),
    [
        (None, GIB, None),
        (0, GIB, None),
        (10 * GIB, GIB, None),
        (10 * GIB, 8 * GIB + 1, 2 * GIB - 1),
        (NEAR_BYTES, 0, None),
        (NEAR_BYTES, 1, NEAR_BYTES - 1),
        (5, 7, 0),
    ],
)
def test_what_is_left_is_told_near_the_quota_only(total: int | None, used: int, left: int | None) -> None:
    assert left_of(usage(total, used), None) == left


@pytest.mark.parametrize(
    ("left", "before", "news"),
    [
        (None, None, False),
        (5, None, True),
        (None, 5, True),
        (100 * GIB, 100 * GIB - MATERIAL_BYTES, False),
        (MATERIAL_BYTES, 2 * MATERIAL_BYTES, True),
        (0, 1, True),
        (1, 0, True),
        (0, 0, False),
    ],
)
def test_only_material_differences_are_news(left: int | None, before: int | None, news: bool) -> None:
    assert is_news(left, Told(1, before, NOW)) is news


def test_a_serial_grows_even_when_the_clock_goes_back() -> None:
    facts = Facts({ONE: usage(10, 10)}, {ONE: [(1, "srv1")]}, {(1, ONE): Told(5000, 7, NOW)}, {}, {})
    (decided,) = plan_allowances(facts, 4000)
    assert decided.item.serial == 5001
    (decided,) = plan_allowances(facts, 9000)
    assert decided.item.serial == 9000


def test_without_any_beats_there_is_no_double() -> None:
    class Empty:
        offline_after_s = 35.0

        def get(self, _sid: str) -> None:
            return None

    found = CloneWatch(Empty()).look("srv1", "i1", ("s1",), 0.0)
    assert (found.owned_elsewhere, found.living, found.undecided) == ((), (), False)
