"""Traces: one id ties a request to its log lines, its tasks and audit rows, and to the commands it caused.

The id comes in as a W3C `traceparent`, or is made at the edge, and is held in a context variable meanwhile.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import structlog

from xfleet_runtime.broker.message import TRACEPARENT

_SHAPE = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
_NONE = "0" * 32
_NO_SPAN = "0" * 16


@dataclass
class Trace:
    """What is known about the request at hand; doors fill in what they find out."""

    id: str
    actor: str = ""
    """As audit rows name who asks; empty for a stranger."""


_current: ContextVar[Trace | None] = ContextVar("xfleet_trace", default=None)


def new_trace_id() -> str:
    """128 random bits, as W3C trace ids are."""
    return secrets.token_hex(16)


def trace_id_of(header: str) -> str:
    """The trace id in a `traceparent` header; empty when there is none or it is malformed."""
    match = _SHAPE.fullmatch(header)
    if match is None or match[1] == _NONE or match[2] == _NO_SPAN:
        return ""
    return match[1]


def current_trace_id() -> str:
    """The id of the request at hand; empty outside of one."""
    trace = _current.get()
    return trace.id if trace is not None else ""


def note_actor(label: str) -> None:
    """Tells the request log who asks."""
    trace = _current.get()
    if trace is not None:
        trace.actor = label


@contextmanager
def tracing(trace_id: str = "") -> Iterator[Trace]:
    """Within the block everything belongs to this trace, or to a new one."""
    trace = Trace(id=trace_id or new_trace_id())
    token = _current.set(trace)
    try:
        with structlog.contextvars.bound_contextvars(trace_id=trace.id):
            yield trace
    finally:
        _current.reset(token)


__all__ = ["TRACEPARENT", "Trace", "current_trace_id", "new_trace_id", "note_actor", "trace_id_of", "tracing"]
