"""What forms mean, and back: nothing changes that nobody touched."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from xfleet_contracts.desired_state import InboundBody
from xfleet_controller.clients import forms as client_forms
from xfleet_controller.clients.models import Client
from xfleet_controller.clients.present import is_private
from xfleet_controller.errors import FieldError, Invalid
from xfleet_controller.inbounds import forms as inbound_forms
from xfleet_controller.panel.forms import Fields, refused
from xfleet_controller.panel.views import PagingView


def posted(values: dict[str, str]) -> Fields:
    return Fields(list(values.items()))


@given(st.integers(min_value=1, max_value=2**62 - 1))
def test_quota_reads_back_as_the_very_same_bytes(total_bytes: int) -> None:
    quota, unit = client_forms.quota_words(total_bytes)
    made = client_forms.new_client(posted({"name": "x", "quota": quota, "quota_unit": unit}))
    assert made.total_bytes == total_bytes


@pytest.mark.parametrize(
    ("total_bytes", "words"),
    [
        (None, ("", "GB")),
        (0, ("", "GB")),
        (50 * 1024**3, ("50", "GB")),
        (int(2.5 * 1024**3), ("2.5", "GB")),
        (1024**4, ("1", "TB")),
        (100 * 1024**2, ("100", "MB")),
        (5_000_001, ("5000001", "B")),
    ],
)
def test_quota_is_said_in_the_largest_unit_that_is_exact(total_bytes: int | None, words: tuple[str, str]) -> None:
    assert client_forms.quota_words(total_bytes) == words


@pytest.mark.parametrize("text", ["ten", "-1", "inf", "nan", "1e40", "1 000 GB"])
def test_quota_that_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        client_forms.new_client(posted({"name": "x", "quota": text, "quota_unit": "GB"}))
    assert caught.value.errors[0].field == "quota"


def test_comma_is_taken_as_a_decimal_point() -> None:
    assert client_forms.new_client(posted({"name": "x", "quota": "1,5", "quota_unit": "GB"})).total_bytes == 1610612736


def test_expiry_lasts_to_the_end_of_the_day() -> None:
    made = client_forms.new_client(posted({"name": "x", "expires_at": "2030-01-31"}))
    assert made.expires_at == datetime(2030, 2, 1, tzinfo=UTC)
    assert client_forms.last_day(made.expires_at) == "2030-01-31"


def test_untouched_limits_are_left_exactly_as_they_are() -> None:
    before = Client(name="x", total_bytes=123_457, expires_at=datetime(2030, 1, 31, 15, 30, tzinfo=UTC), version=3)
    shown = client_forms.stored_values(before) | {"comment": ""}
    edit = client_forms.edited_client(posted(shown), before)
    assert edit.total_bytes is UNSET
    assert edit.expires_at is UNSET
    assert edit.version == 3


REALITY = InboundBody(
    ref=1,
    port=443,
    protocol="vless",
    settings={"decryption": "none"},
    stream_settings={
        "network": "raw",
        "security": "reality",
        "realitySettings": {"target": "a.example:443", "serverNames": ["a.example"], "privateKey": "secret"},
    },
    sniffing={"enabled": True},
)


def shown(body: InboundBody) -> dict[str, str]:
    return inbound_forms.stored_values(body, server_id=1, remark="r", enabled=True, version=7)


def test_untouched_inbound_form_changes_nothing() -> None:
    edit = inbound_forms.edited_inbound(posted(shown(REALITY)), REALITY)
    assert edit.stream_settings == REALITY.stream_settings
    assert edit.settings == REALITY.settings
    assert edit.sniffing == REALITY.sniffing
    assert edit.version == 7


def test_changed_target_keeps_the_private_key() -> None:
    values = shown(REALITY) | {"reality_target": "b.example", "reality_server_names": "b.example, www.b.example"}
    edit = inbound_forms.edited_inbound(posted(values), REALITY)
    assert isinstance(edit.stream_settings, dict)
    reality = edit.stream_settings["realitySettings"]
    assert reality == {
        "target": "b.example:443",
        "serverNames": ["b.example", "www.b.example"],
        "privateKey": "secret",
    }


def test_json_that_was_touched_wins_over_the_simple_fields() -> None:
    stream = '{"network": "raw", "security": "none"}'
    edit = inbound_forms.edited_inbound(posted(shown(REALITY) | {"stream_settings": stream}), REALITY)
    assert edit.stream_settings == {"network": "raw", "security": "none"}


def test_another_kind_drops_the_settings_of_the_first() -> None:
    edit = inbound_forms.edited_inbound(posted(shown(REALITY) | {"preset": "ws", "ws_path": "/x"}), REALITY)
    assert edit.stream_settings == {"network": "ws", "security": "none", "wsSettings": {"path": "/x"}}


def test_suggested_port_is_free_and_low_only_where_it_may_be_opened() -> None:
    assert inbound_forms.suggest_port(set(), low_ports=True) == 443
    assert inbound_forms.suggest_port({443}, low_ports=True) == 8443
    assert inbound_forms.suggest_port({443, 8443}, low_ports=True) >= 20_000
    assert inbound_forms.suggest_port(set(), low_ports=False) >= 20_000


def test_refusal_stands_beside_its_field_with_the_rest_of_its_path() -> None:
    refusal = Invalid(
        [
            FieldError("stream_settings.realitySettings.target", "Not a host."),
            FieldError("stream_settings.realitySettings.shortIds[0]", "Odd."),
            FieldError("port", "Taken."),
            FieldError("somewhere.else", "Strange."),
        ]
    )
    form = refused({"port": "1"}, refusal, names=inbound_forms.FIELD_NAMES)
    assert form.errors == {
        "reality_target": "Not a host.",
        "stream_settings": "realitySettings.shortIds[0]: Odd.",
        "port": "Taken.",
        "": "somewhere.else: Strange.",
    }


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("localhost", True),
        ("fd00::1", True),
        ("8.8.8.8", False),
        ("x.example", False),
    ],
)
def test_private_addresses_are_told_apart(host: str, private: bool) -> None:
    assert is_private(host) is private


@given(st.integers(1, 500), st.integers(0, 20_000))
def test_page_numbers_offer_the_ends_and_the_neighbours(page: int, total: int) -> None:
    view = PagingView(page=page, page_size=25, total=total)
    shown = [number for number in view.numbers if number]
    assert shown == sorted(set(shown))
    assert shown[0] == 1
    assert shown[-1] == view.page_count
    assert len(view.numbers) <= 9
