"""Figures as people read them."""

from datetime import UTC, datetime, timedelta

import pytest

from xfleet_ui import filters

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KB"),
        (1536, "1.5 KB"),
        (5 * 1024**2, "5 MB"),
        (1024**2 - 1, "1 MB"),
        (12_345_678, "11.8 MB"),
        (987_654_321_000, "920 GB"),
        (2**63 - 1, "8 EB"),
    ],
)
def test_sizes_count_in_1024s(value: int | None, text: str) -> None:
    assert filters.format_bytes(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0, "0 bit/s"), (125, "1 kbit/s"), (1_250_000, "10 Mbit/s"), (2e8, "1.6 Gbit/s")]
)
def test_rates_are_bits_in_1000s(value: float | None, text: str) -> None:
    assert filters.format_rate(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0, "0%"), (0.2, "<1%"), (41.5, "42%"), (99.4, "99%"), (100, "100%")]
)
def test_percent_rounds_and_owns_up_to_little(value: float | None, text: str) -> None:
    assert filters.format_percent(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0, "0 s"), (59.9, "59 s"), (60, "1 min"), (310, "5 min 10 s"), (86400 * 3 + 4 * 3600, "3 d 4 h")],
)
def test_duration_shows_its_two_largest_units(seconds: float | None, text: str) -> None:
    assert filters.format_duration(seconds) == text


def test_ago_speaks_of_the_past() -> None:
    assert filters.format_ago(None, NOW) == "never"
    assert filters.format_ago(NOW, NOW) == "now"
    assert filters.format_ago(NOW - timedelta(seconds=12), NOW) == "12 s ago"
    assert filters.format_ago(NOW - timedelta(days=3, hours=2), NOW) == "3 d ago"


def test_until_turns_into_ago_once_past() -> None:
    assert filters.format_until(NOW + timedelta(hours=5), NOW) == "in 5 h"
    assert filters.format_until(NOW - timedelta(minutes=2), NOW) == "2 min ago"


def test_both_lines_of_a_sparkline_share_one_scale() -> None:
    assert filters.spark_points((0, 10), (5,)) == "0.0,26.5 100.0,1.5"
    assert filters.spark_points((5,), (0, 10)) == "0.0,14.0"
    assert filters.spark_points(()) == ""


def test_persian_gets_its_digits_and_others_do_not() -> None:
    assert filters.localize_digits("12:05", "fa") == "۱۲:۰۵"
    assert filters.localize_digits("12:05", "ru") == "12:05"


def test_moments_and_words_of_the_wire_read_as_people_write_them() -> None:
    assert filters.format_moment(NOW, seconds=True) == NOW.strftime("%Y-%m-%d %H:%M:%S UTC")
    assert filters.format_moment(None, seconds=True) == filters.NOTHING
    assert [filters.format_wire(word) for word in ("vless", "ws", "raw", "reality", "")] == [
        "VLESS", "WebSocket", "TCP", "Reality", "",
    ]  # fmt: skip
    assert filters.format_wire("carrier-pigeon") == "carrier-pigeon"
