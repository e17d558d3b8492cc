"""A proxy as a setting names it, and the mask of WebSockets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xfleet_runtime.broker import parse_proxy
from xfleet_runtime.broker.transports import masked
from xfleet_runtime.errors import Unusable


@pytest.mark.parametrize(
    "setting",
    ["socks4://h:1", "socks5://", "http://h:99999", "socks5://h:0", "socks5://u:secret@h:x", "h:1080", "http://h/x"],
)
def test_a_proxy_that_cannot_be_one_is_refused_without_its_password(setting: str) -> None:
    with pytest.raises(Unusable) as told:
        parse_proxy(setting)
    assert "secret" not in str(told.value)


def test_a_proxy_is_shown_without_its_password() -> None:
    proxy = parse_proxy("socks5h://user:secret@[::1]")
    assert proxy is not None
    assert proxy.shown == "socks5://[::1]:1080"
    assert "secret" not in repr(proxy)
    assert parse_proxy("") is None


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_masking_twice_changes_nothing(payload: bytes, key: bytes) -> None:
    assert masked(masked(payload, key), key) == payload
    assert masked(payload, b"\0\0\0\0") == payload
