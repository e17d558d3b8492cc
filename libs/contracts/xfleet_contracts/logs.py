"""Logs: an agent's own, and Xray's; read once, or live while somebody looks.

Subject  fleet.cmd.<sid>.logs.read (request), fleet.cmd.<sid>.log.lease (unreplied), fleet.up.<sid>.log.<lease id>
Rhythm   on demand; live lines about twice a second while a lease stands, which whoever looks renews
Loss     lines of a live log may be lost and are counted in `dropped_count`; reading again brings them
"""

from typing import Literal

from xfleet_contracts.errors import Refusal
from xfleet_contracts.message import Message, Number

LOGS_READ = "logs.read"
LOG_LEASE = "log.lease"
MAX_LINES = 1000
MAX_LINE_BYTES = 4096
LEASE_S = 30
"""A lease ends by itself after this; whoever looks renews it every third of that."""
MAX_LEASES = 8

LogKind = Literal["agent", "xray_error", "xray_access"]
LOG_KINDS: tuple[LogKind, ...] = ("agent", "xray_error", "xray_access")


class LogNotAllowed(Refusal):
    """A log outside the list of what may be read."""

    code = "log_not_allowed"
    status = 403
    message = "This log may not be read."


class LogUnreadable(Refusal):
    """A log that may be read and cannot be: the agent has no right to it, or it is no file."""

    code = "log_unreadable"
    status = 409
    message = "The log cannot be read on that server."


class LogsRead(Message, frozen=True, kw_only=True):
    """Body of `logs.read`: the newest lines of one log."""

    log: str
    """A `LogKind`, or an absolute path that the agent's setting `log_paths` lists."""
    lines_count: int = 200
    """1 to MAX_LINES."""
    contains: str = ""
    """Only lines with this text, whatever its case."""


class LogText(Message, frozen=True, kw_only=True):
    """Answer to `logs.read`."""

    log: str
    lines: tuple[str, ...] = ()
    """Oldest first; bytes that are not UTF-8 are replaced, longer lines are cut."""
    truncated: bool = False
    """Older lines were left out for size."""
    size_bytes: Number = 0
    """Of the whole log."""


class LogLease(Message, frozen=True, kw_only=True):
    """Body of `log.lease`: tell me new lines of this log until then; `until_ms` in the past ends it."""

    lease: str
    """Chosen by the controller: lower-case letters and digits, the last token of the lines' subject."""
    log: str
    until_ms: int
    contains: str = ""


class LogLines(Message, frozen=True, kw_only=True):
    """New lines of a leased log."""

    seq: Number
    """Counts up within the lease, from 1."""
    lines: tuple[str, ...] = ()
    dropped_count: Number = 0
    """Lines left out since the message before, because there were too many."""
    error: str = ""
    """Word when the log cannot be read: `log_not_allowed`, `log_unreadable`, `rate_limited`; then nothing follows."""
