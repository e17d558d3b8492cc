"""Which ports to listen on: what was asked for, else what was used last time, else the usual one."""

import errno
import socket

from xfleet_runtime.errors import Unusable


def choose_port(what: str, option: str, host: str, *, asked: int | None, last: int | None, usual: int) -> int:
    """A port that is free now. Raises `Unusable` when it is busy; only a port nobody counts on may move.

    Asked for 0, the last one is kept where it is still free, because agents and bookmarks know it.
    """
    if asked == 0:
        return last if last is not None and _refusal(host, last) is None else free_port(host)
    port = asked if asked is not None else last if last is not None else usual
    refusal = _refusal(host, port)
    if refusal is None:
        return port
    if refusal == errno.EADDRINUSE:
        raise Unusable(
            f"The {what}'s port {port} is busy. Stop what uses it, or choose another: {option} N (0 takes a free one)."
        )
    if refusal == errno.EACCES:
        raise Unusable(f"The {what} may not use port {port} without root. Choose one above 1023 with {option} N.")
    raise Unusable(f"The {what} cannot listen on {host} port {port}: {errno.errorcode.get(refusal, refusal)}.")


def free_port(host: str) -> int:
    """A port nobody listens on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _refusal(host: str, port: int) -> int | None:
    """The error number with which the system refuses this address; None when it is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno
    return None
