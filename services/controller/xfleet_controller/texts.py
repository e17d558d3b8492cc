"""What text from outside may hold, before it is kept."""

from collections.abc import Iterable
from typing import Any

NEWLINES = "\n\t"


def has_controls(text: str, *, allowed: str = "") -> bool:
    """Whether the text holds control characters beside the allowed ones: PostgreSQL refuses NUL, terminals obey ESC."""
    return any((char < " " or char == "\x7f") and char not in allowed for char in text)


def cleaned(text: str, max_length: int) -> str:
    """The text without control characters, cut to a length: for what an agent says about itself."""
    return "".join(char for char in text if char >= " " and char != "\x7f")[:max_length]


def is_too_deep(value: Any, depth: int) -> bool:
    """Whether JSON nests deeper than this; looks no deeper than that itself."""
    level = [value]
    for _ in range(depth + 1):
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return False
    return True


def has_nul(value: Any) -> bool:
    """Whether a text anywhere in JSON holds NUL; the JSON must not nest too deeply."""
    if isinstance(value, str):
        return "\0" in value
    names = value if isinstance(value, dict) else ()
    return any("\0" in str(name) for name in names) or any(has_nul(each) for each in _inside(value))


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
