"""What is wrong with a piece of desired state: where, a stable word, a sentence."""

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple, cast

from xfleet_contracts.desired_state import EntityKey


class Problem(NamedTuple):
    """One thing that is wrong inside one entity."""

    path: str
    """Where in the entity's body, such as `stream_settings.realitySettings.shortIds[0]`."""
    code: str
    """Stable word, for programs."""
    reason: str
    """Sentence, for people."""


class EntityProblem(NamedTuple):
    """A problem and the entity that has it."""

    key: EntityKey
    path: str
    code: str
    reason: str


def at_entity(key: EntityKey, problem: Problem) -> EntityProblem:
    """The problem with the name of its entity."""
    return EntityProblem(key, problem.path, problem.code, problem.reason)


def unknown_keys(given: Mapping[str, Any], known: Collection[str], path: str) -> Iterator[Problem]:
    """A problem for each key Xray would silently ignore, with the nearest key it knows."""
    for key in given:
        if key in known:
            continue
        near = nearest(key, known)
        hint = f" Did you mean {near!r}?" if near else ""
        yield Problem(f"{path}.{key}" if path else key, "unknown_key", f"Xray does not know {key!r} here.{hint}")


def nearest(word: str, known: Collection[str]) -> str | None:
    """The known word that this one is most likely a misspelling of."""
    by_case = {each.lower(): each for each in known}
    close = get_close_matches(word.lower(), by_case, n=1, cutoff=0.6)
    return by_case[close[0]] if close else None


def as_object(value: Any) -> dict[str, Any]:
    """The value when it is a JSON object, else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """The value when it is a JSON array, else an empty one."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def wrong_type(value: Any, kind: type, path: str, noun: str) -> Iterator[Problem]:
    """A problem when the value is not of this JSON type."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        yield Problem(path, "wrong_type", f"{path.rsplit('.', maxsplit=1)[-1]} must be {noun}.")
