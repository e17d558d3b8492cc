"""Names under which Xray counts: emails, tags and the `a>>>b>>>traffic>>>c` names, there and back.

Uplink is what a client sends, downlink what it receives: the client's own view.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple, cast

Scope = Literal["user", "inbound", "outbound"]
Direction = Literal["uplink", "downlink"]

_INBOUND_TAG_PREFIX = "in-"
_SCOPES = frozenset({"user", "inbound", "outbound"})
_DIRECTIONS = frozenset({"uplink", "downlink"})
_MAX_REF = 2**52


class Counter(NamedTuple):
    """One of Xray's byte counters."""

    scope: Scope
    name: str
    """The client's email, or the tag."""
    direction: Direction
    value_bytes: int


class ClientTraffic(NamedTuple):
    """What one client moved over one inbound since Xray started."""

    up_bytes: int
    down_bytes: int


def client_email(client_ref: int, inbound_ref: int) -> str:
    """Xray's `email` for one client on one inbound; also the id of the entity of kind `client`."""
    return f"{client_ref}.{inbound_ref}"


def parse_email(email: str) -> tuple[int, int] | None:
    """`(client ref, inbound ref)`, or None when the email is not one of ours."""
    client, dot, inbound = email.partition(".")
    if not dot:
        return None
    client_ref, inbound_ref = _ref(client), _ref(inbound)
    return None if client_ref is None or inbound_ref is None else (client_ref, inbound_ref)


def inbound_tag(inbound_ref: int) -> str:
    """The tag Xray knows this inbound by."""
    return f"{_INBOUND_TAG_PREFIX}{inbound_ref}"


def parse_inbound_tag(tag: str) -> int | None:
    """The inbound's ref, or None when the tag is not one of ours."""
    return _ref(tag.removeprefix(_INBOUND_TAG_PREFIX)) if tag.startswith(_INBOUND_TAG_PREFIX) else None


def parse_counter(name: str, value_bytes: int) -> Counter | None:
    """The counter of this name, or None when it counts something else than traffic."""
    head, _, direction = name.rpartition(">>>")
    head, _, word = head.rpartition(">>>")
    scope, separator, subject = head.partition(">>>")
    if word != "traffic" or not separator or scope not in _SCOPES or direction not in _DIRECTIONS:
        return None
    return Counter(cast("Scope", scope), subject, cast("Direction", direction), value_bytes)


def client_traffic(counters: Iterable[Counter]) -> dict[tuple[int, int], ClientTraffic]:
    """`(client ref, inbound ref)` to bytes, for every user counter of ours."""
    total: dict[tuple[int, int], ClientTraffic] = {}
    for counter in counters:
        refs = parse_email(counter.name) if counter.scope == "user" else None
        if refs is None:
            continue
        up, down = total.get(refs, (0, 0))
        if counter.direction == "uplink":
            total[refs] = ClientTraffic(up + counter.value_bytes, down)
        else:
            total[refs] = ClientTraffic(up, down + counter.value_bytes)
    return total


def _ref(text: str) -> int | None:
    if not text.isascii() or not text.isdigit() or text != text.lstrip("0"):
        return None
    ref = int(text)
    return ref if 0 < ref < _MAX_REF else None
