"""Rights, codes and differences: the pure parts."""

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import xfleet_controller
from xfleet_controller.audit.difference import MAX_LINES, MAX_TEXT, Change, difference
from xfleet_controller.auth import totp
from xfleet_controller.auth.rights import ACTIONS, ROLES, Actor, actions_of, grants, may, not_allowed

RFC_SECRET = b"12345678901234567890"
RFC_CODES = {59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 20000000000: "353130"}
"""RFC 6238, appendix B, last six digits."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(("at_s", "code"), RFC_CODES.items())
def test_codes_are_those_of_the_standard(at_s: int, code: str) -> None:
    assert totp.code_at(RFC_SECRET, at_s // totp.STEP_S) == code
    assert totp.counter_of(RFC_SECRET, code, at_s, None) == at_s // totp.STEP_S


@pytest.mark.parametrize("steps", [-1, 0, 1])
def test_a_clock_one_step_off_still_gets_in(steps: int) -> None:
    code = totp.code_at(RFC_SECRET, 1000 + steps)
    assert totp.counter_of(RFC_SECRET, code, 1000 * totp.STEP_S, None) == 1000 + steps


@pytest.mark.parametrize("steps", [-2, 2])
def test_a_clock_two_steps_off_does_not(steps: int) -> None:
    code = totp.code_at(RFC_SECRET, 1000 + steps)
    assert totp.counter_of(RFC_SECRET, code, 1000 * totp.STEP_S, None) is None


def test_a_used_code_and_every_older_one_is_refused() -> None:
    for steps in (-1, 0):
        code = totp.code_at(RFC_SECRET, 1000 + steps)
        assert totp.counter_of(RFC_SECRET, code, 1000 * totp.STEP_S, 1000) is None
    assert totp.counter_of(RFC_SECRET, totp.code_at(RFC_SECRET, 1001), 1000 * totp.STEP_S, 1000) == 1001


@pytest.mark.parametrize("code", ["", "12345", "1234567", "٣٣٣٣٣٣", "12 34 5", "-12345", "0x1234", "²²²²²²"])
def test_what_is_no_code_is_no_code(code: str) -> None:
    assert totp.counter_of(RFC_SECRET, code, 59, None) is None


def test_recovery_codes_are_taken_however_they_are_typed() -> None:
    codes = totp.new_recovery_codes()
    assert len(set(codes)) == totp.RECOVERY_COUNT
    typed = {totp.recovery_hash(text) for text in (codes[0], codes[0].lower(), f" {codes[0].replace('-', ' ')} ")}
    assert len(typed) == 1
    assert None not in typed
    assert totp.recovery_hash("0000-0000-0000-0000") is None
    assert totp.recovery_hash(f"{codes[0]}A") is None


def test_the_url_for_the_app_says_who_and_where() -> None:
    url = totp.app_url(RFC_SECRET, issuer="My fleet/1", account="a:b")
    assert url.startswith(
        "otpauth://totp/My%20fleet%2F1:a%3Ab?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=My%20fleet"
    )


def test_every_action_the_code_asks_for_is_a_known_one() -> None:
    """A new action goes into `ACTIONS`, where roles and API tokens find it."""
    root = Path(xfleet_controller.__file__).parent
    asked: dict[str, str] = {}
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"authorize", "may"}
            if named and isinstance(node.args[1], ast.Constant):
                asked[node.args[1].value] = path.name
    assert len(asked) > 15
    assert {action: name for action, name in asked.items() if action not in ACTIONS} == {}


def test_every_pattern_of_a_role_means_something() -> None:
    assert [(role, each) for role, patterns in ROLES.items() for each in patterns if not actions_of(each)] == []


def test_an_area_covers_what_is_in_it_and_nothing_beside() -> None:
    assert grants({"servers.*"}, "servers.order.heavy")
    assert grants({"servers.order.*"}, "servers.order.read")
    assert not grants({"servers.order.*"}, "servers.read")
    assert not grants({"serv*", "servers"}, "servers.read")
    assert not grants({"server.*"}, "servers.read")


def actor(role: str, *scopes: str) -> Actor:
    return Actor(name="a", role=role, channel="token", scopes=frozenset(scopes))


@given(role=st.sampled_from(sorted(ROLES)), scopes=st.sets(st.sampled_from([*ACTIONS, "*", "servers.*", "admins.*"])))
def test_no_token_does_more_than_its_role_or_reaches_the_account(role: str, scopes: set[str]) -> None:
    for action in ACTIONS:
        if may(actor(role, *scopes), action):
            assert grants(ROLES[role], action)
            assert action.partition(".")[0] not in {"account", "bot"}
            if action.startswith(("admins.", "tokens.")):
                assert role == "owner"
                assert grants(scopes - {"*"}, action)


@given(
    role=st.sampled_from(sorted(ROLES)),
    mine=st.sets(st.sampled_from([*ACTIONS, "*"])),
    asked=st.sets(st.sampled_from([*ACTIONS, "*", "clients.*", "servers.*", "tokens.*"]), min_size=1),
)
def test_a_token_made_by_a_token_never_reaches_further(role: str, mine: set[str], asked: set[str]) -> None:
    maker = actor(role, *mine)
    if not not_allowed(maker, asked):
        child = actor(role, *asked)
        assert [action for action in ACTIONS if may(child, action) and not may(maker, action)] == []


def test_a_difference_names_the_paths_that_differ() -> None:
    before = {"role": "owner", "same": 1, "tags": ["a", "b"], "deep": {"x": [{"y": 1}]}}
    after = {"role": "support", "same": 1, "tags": ["a"], "deep": {"x": [{"y": 2}, {"y": 3}]}, "new": None}
    assert difference(before, after) == (
        Change(path="role", before="owner", after="support"),
        Change(path="tags", before="a, b", after="a"),
        Change(path="deep.x[0].y", before="1", after="2"),
        Change(path="deep.x[1].y", before=None, after="3"),
        Change(path="new", before=None, after="null"),
    )


@given(before=JSON, after=JSON)
def test_a_difference_is_empty_exactly_when_nothing_changed(before: object, after: object) -> None:
    changes = difference(before, after)
    assert not difference(before, before)
    assert len(changes) <= MAX_LINES
    assert all(len(text) <= MAX_TEXT + 1 for each in changes for text in (each.before or "", each.after or ""))
