"""Which ports `xfleet up` takes."""

import socket
from collections.abc import Iterator

import pytest

from xfleet_cli.up.ports import choose_port, free_port
from xfleet_runtime.errors import Unusable

HOST = "127.0.0.1"


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        yield listener.getsockname()[1]


def choose(*, asked: int | None, last: int | None, usual: int) -> int:
    return choose_port("panel", "--panel-port", HOST, asked=asked, last=last, usual=usual)


def test_what_is_asked_for_wins_over_the_last_and_that_over_the_usual() -> None:
    asked, last, usual = free_port(HOST), free_port(HOST), free_port(HOST)
    assert choose(asked=asked, last=last, usual=usual) == asked
    assert choose(asked=None, last=last, usual=usual) == last
    assert choose(asked=None, last=None, usual=usual) == usual


def test_zero_keeps_the_last_port_while_it_is_free(busy_port: int) -> None:
    last = free_port(HOST)
    assert choose(asked=0, last=last, usual=1) == last
    assert choose(asked=0, last=busy_port, usual=1) not in {busy_port, 1, 0}
    assert choose(asked=0, last=None, usual=1) > 1


@pytest.mark.parametrize("how", ["asked", "last", "usual"])
def test_a_busy_port_is_never_swapped_silently(busy_port: int, how: str) -> None:
    with pytest.raises(Unusable, match=f"port {busy_port} is busy.*--panel-port"):
        choose(
            asked=busy_port if how == "asked" else None,
            last=busy_port if how == "last" else None,
            usual=busy_port,
        )
