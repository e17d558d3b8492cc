"""What changed between two JSON values, as lines a person reads. Pure."""

from collections.abc import Iterator
from typing import Any

import msgspec

MAX_LINES = 200
MAX_TEXT = 300
ABSENT = object()


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One path at which two values differ; None: it is not there on that side."""

    path: str
    before: str | None
    after: str | None


def difference(before: Any, after: Any) -> tuple[Change, ...]:
    """The paths at which two values differ, in their order; at most `MAX_LINES`."""
    left, right = _flat(before), _flat(after)
    changes = (
        Change(path=path, before=_text(left.get(path, ABSENT)), after=_text(right.get(path, ABSENT)))
        for path in left | right
        if left.get(path, ABSENT) != right.get(path, ABSENT)
    )
    return tuple(change for _, change in zip(range(MAX_LINES), changes, strict=False))


def _flat(value: Any) -> dict[str, Any]:
    return {} if value is None else dict(_leaves(value, ""))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list) and any(isinstance(each, (dict, list)) for each in value):
        for at, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{at}]")
    else:
        yield path or "value", value


def _text(value: Any) -> str | None:
    if value is ABSENT:
        return None
    if isinstance(value, str):
        text = value
    elif isinstance(value, list):
        text = ", ".join(str(_text(each)) for each in value)
    else:
        text = msgspec.json.encode(value).decode()
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"
