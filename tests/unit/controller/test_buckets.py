"""Buckets per network: nobody gets more by changing addresses, and strangers take nothing from those who sign."""

import pytest

from xfleet_controller.fleet.returns import ALL_BURST_COUNT, BURST_COUNT, Returns, TooManyReturns
from xfleet_controller.install.gate import BURST_COUNT as FETCHES
from xfleet_controller.install.gate import Gate, TooManyFetches


def test_a_whole_ipv6_network_fetches_from_one_bucket() -> None:
    gate = Gate()
    for each in range(FETCHES):
        gate.pass_through(f"2001:db8::{each:x}", 0)
    with pytest.raises(TooManyFetches):
        gate.pass_through("2001:db8::ffff", 0)
    gate.pass_through("2001:db8:0:1::1", 0)


def test_a_whole_ipv6_network_returns_from_one_bucket() -> None:
    returns = Returns()
    for each in range(BURST_COUNT):
        returns.let_in(f"2001:db8::{each:x}", 0)
    with pytest.raises(TooManyReturns):
        returns.let_in("2001:db8::ffff", 0)


def test_what_nobody_signed_takes_nothing_from_what_all_share() -> None:
    returns = Returns()
    for each in range(2 * ALL_BURST_COUNT):
        returns.let_in(f"10.0.{each // 256}.{each % 256}", 0)
    for _ in range(ALL_BURST_COUNT):
        returns.look_up(0)
    with pytest.raises(TooManyReturns):
        returns.look_up(0)
