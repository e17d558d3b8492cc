"""What agents answer, made fit to be kept and shown: an agent may be broken or hostile."""

import math
import re
from typing import Any

import msgspec

from xfleet_contracts import care, commands, installs, logs
from xfleet_contracts.codec import redact
from xfleet_contracts.errors import ErrorBody, Refusal, RemoteRefusal
from xfleet_controller.bus import BAD_ANSWER
from xfleet_controller.texts import NEWLINES

MAX_TEXT = 2000
MAX_KEPT_BYTES = 32 * 1024
MAX_DEPTH = 12
MAX_ITEMS = 500
MAX_INT = 2**63
_WORD = re.compile(r"[a-z][a-z0-9_]{0,49}")
_NAMED = (
    logs.LogNotAllowed, installs.DownloadFailed, installs.ChecksumWrong, installs.InstallRefused,
    installs.InstallUnsupported, care.CertificateUnknown,
)  # fmt: skip
STATUSES: dict[str, int] = {
    **{refusal.code: refusal.status for refusal in _NAMED},
    commands.RATE_LIMITED: 429,
    BAD_ANSWER: 502,
    "internal": 502,
    "malformed": 422,
    "storage": 507,
}
"""HTTP status of the words agents use; all others are conflicts."""
OTHERWISE = 409


class AgentRefused(Refusal):
    """The server's own no; `code` is its word."""

    status = OTHERWISE

    def __init__(self, body: ErrorBody) -> None:
        word = body.code if _WORD.fullmatch(body.code) else BAD_ANSWER
        details = kept(body.details)
        super().__init__(
            _text(body.message, NEWLINES) or "The server refused.", **({"details": details} if details else {})
        )
        self.code = word  # type: ignore[misc]  # the agent's own word
        self.status = STATUSES.get(word, OTHERWISE)  # type: ignore[misc]


def refusal_of(error: RemoteRefusal) -> AgentRefused:
    """An agent's refusal as ours: with its word as the code."""
    return AgentRefused(error.body())


def kept(value: Any) -> Any:
    """A message as plain JSON that every database holds: redacted, without control characters, of bounded size."""
    try:
        plain = _plain(redact(value), MAX_DEPTH)
    except RecursionError:
        return {"truncated": True}
    size_bytes = len(msgspec.json.encode(plain))
    return plain if size_bytes <= MAX_KEPT_BYTES else {"truncated": True, "size_bytes": size_bytes}


def _plain(value: Any, depth: int) -> Any:
    if isinstance(value, dict) and depth:
        return {_text(str(name), ""): _plain(each, depth - 1) for name, each in list(value.items())[:MAX_ITEMS]}
    if isinstance(value, (list, tuple)) and depth:
        return [_plain(each, depth - 1) for each in value[:MAX_ITEMS]]
    if isinstance(value, (dict, list, tuple)):
        return "…"
    if value is None or isinstance(value, bool) or (isinstance(value, int) and abs(value) < MAX_INT):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _text(str(value), NEWLINES)


def _text(text: str, allowed: str) -> str:
    shown = "".join(char for char in text[:MAX_TEXT] if (char >= " " and char != "\x7f") or char in allowed)
    return shown.encode(errors="replace").decode()


def shown(value: Any) -> Any:
    """JSON of an agent for a person to read: redacted, as long as it is."""
    try:
        return redact(value)
    except RecursionError:
        raise AgentRefused(ErrorBody(code=BAD_ANSWER, message="The server's answer is nested too deeply.")) from None
