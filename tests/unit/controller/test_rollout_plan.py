"""Waves, and whether an upgraded server is well: decided purely."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.controller import make_beat
from xfleet_contracts.heartbeat import XrayState
from xfleet_controller.rollouts.plan import Sight, Watch, is_size, judge, plan_waves, reason_to_skip, trouble_of

SIZES = st.lists(
    st.one_of(st.just("rest"), st.integers(1, 30).map(str), st.integers(1, 100).map("{}%".format)), max_size=5
)


@given(st.lists(st.integers(1, 500), unique=True, max_size=60), SIZES)
def test_waves_hold_every_server_once_in_order(server_ids: list[int], sizes: list[str]) -> None:
    waves = plan_waves(server_ids, sizes)
    assert [each for wave in waves for each in wave] == server_ids
    assert all(waves)


def test_waves_are_one_then_a_tenth_then_the_rest() -> None:
    assert [len(wave) for wave in plan_waves(range(50), ("1", "10%", "rest"))] == [1, 5, 44]
    assert [len(wave) for wave in plan_waves(range(2), ("1", "10%", "rest"))] == [1, 1]
    assert [len(wave) for wave in plan_waves(range(10), ("3",))] == [3, 7]


@pytest.mark.parametrize(
    ("size", "good"),
    [
        ("1", True),
        ("10%", True),
        ("rest", True),
        ("0", False),
        ("101%", False),
        ("-1", False),
        ("", False),
        ("1.5", False),
    ],
)
def test_sizes(size: str, good: bool) -> None:
    assert is_size(size) is good


def sight(*, online: bool = True, fresh: bool = True, version: str = "2", **xray: object) -> Sight:
    state = XrayState(**{"status": "running", "version": "26.2.6", **xray})
    return Sight(online, make_beat(agent_version=version, xray=state, upgradable=True) if version else None, fresh)


def run(seen: list[tuple[float, Sight]]) -> list[str]:
    watch, said = Watch(begun_s=0), list[str]()
    for now_s, each in seen:
        said.append(judge(watch, each, trouble_of("agent.update", "2", each), now_s, watch_s=30, settle_s=60).status)
    return said


def test_well_for_long_enough_is_healthy() -> None:
    old = sight(version="1")
    assert run([(1, old), (20, sight()), (49, sight()), (50, sight())]) == [
        "watching",
        "watching",
        "watching",
        "healthy",
    ]


def test_never_well_in_time_is_failed() -> None:
    assert run([(1, sight(version="1")), (61, sight(version="1"))]) == ["watching", "failed"]
    assert run([(1, sight(online=False)), (61, sight(online=False))]) == ["watching", "failed"]
    assert run([(1, sight(fresh=False)), (61, sight(fresh=False))]) == ["watching", "failed"]


def test_a_crash_or_a_rollback_while_watched_is_failed_at_once() -> None:
    assert run([(1, sight()), (5, sight(status="crashed"))]) == ["watching", "failed"]
    assert run([(1, sight(restarts_count=7)), (5, sight(restarts_count=8))]) == ["watching", "failed"]
    assert run([(1, sight()), (5, sight(version="1"))]) == ["watching", "failed"]


def test_a_lost_link_is_no_crash_but_must_come_back() -> None:
    assert run([(1, sight()), (20, sight(online=False)), (40, sight()), (69, sight()), (70, sight())]) == [
        "watching"
    ] * 4 + ["healthy"]
    assert run([(1, sight()), (20, sight(online=False)), (81, sight(online=False))])[-1] == "failed"


def test_who_cannot_be_judged_is_left_out() -> None:
    assert reason_to_skip("agent.update", sight()) == ""
    assert "offline" in reason_to_skip("xray.install", sight(online=False))
    assert "stopped" in reason_to_skip("xray.install", sight(status="stopped"))
    assert "replace itself" in reason_to_skip("agent.update", Sight(True, make_beat(), True))
